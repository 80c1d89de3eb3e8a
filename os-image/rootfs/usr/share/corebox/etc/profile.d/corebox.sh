# The clients speak the API that scripts written for CoreOS expect.
export ETCDCTL_API="${ETCDCTL_API:-2}"
PATH="$PATH:/opt/bin"
