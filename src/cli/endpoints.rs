//! Where to find the store, as people say it: a flag, the environment, else this machine.

use crate::cli::environment;
use crate::rpc::client::url::{Url, UrlError};

/// Where the store is unless somebody says otherwise: etcd's ports of 2015 on this machine.
pub const DEFAULT: &str = "http://127.0.0.1:2379,http://127.0.0.1:4001";

/// Reads a list of endpoints, separated by commas; what has no scheme gets `http://`.
pub fn parse(list: &str) -> Result<Vec<Url>, UrlError> {
    list.split(',').map(str::trim).filter(|text| !text.is_empty()).map(one).collect()
}

fn one(text: &str) -> Result<Url, UrlError> {
    if text.contains("://") { text.parse() } else { format!("http://{text}").parse() }
}

/// Returns the value of the first of these variables that is set.
pub fn from_environment(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| environment::variable(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_leave_out_the_scheme() {
        let shown: Vec<_> =
            parse("core-1:2379, http://core-2:4001/").unwrap().iter().map(Url::to_string).collect();
        assert_eq!(shown, ["http://core-1:2379", "http://core-2:4001"]);
    }

    #[test]
    fn the_default_can_be_read() {
        assert_eq!(parse(DEFAULT).unwrap().len(), 2);
    }
}
