//! History that is forgotten without being asked, by whoever leads.

use corebox::wire::etcd::v3::etcdserverpb as pb;
use testbed::etcd_v3::run;
use tonic::Code;

use super::v3::{all, clients, until};

#[test]
fn what_is_old_is_compacted_on_all_members_and_again_after_the_leader_went() {
    let site = super::site("v3-auto-compaction");
    let keep = |member: testbed::etcd::Member| member.flag("auto-compaction-retention", "1s");
    let members = site.cluster(&["a", "b", "c"]).unwrap();
    let mut members: Vec<_> = members.into_iter().map(keep).collect();
    for member in &mut members {
        member.start().unwrap();
    }
    for member in &mut members {
        member.healthy().unwrap();
    }
    run(async {
        let clients = clients(&members);
        for number in 0..10 {
            clients[0].put("k", &number.to_string()).await.unwrap();
        }
        let last = 11;
        for client in &clients {
            until("old history to be gone", || async {
                let past = pb::RangeRequest { revision: last - 1, serializable: true, ..all("k") };
                match client.kv.clone().range(past).await {
                    Ok(_) => Err("it is there".to_owned()),
                    Err(refused) if refused.code() == Code::OutOfRange => Ok(()),
                    Err(other) => Err(other.to_string()),
                }
            })
            .await;
            let kept = pb::RangeRequest { revision: last, ..all("k") };
            let kept = client.kv.clone().range(kept).await.unwrap().into_inner();
            assert_eq!(kept.kvs[0].value, b"9", "the newest is always there");
        }
    })
    .unwrap();
    let leader = members[0].leader().unwrap();
    let gone = members.iter().position(|member| member.name == leader).unwrap();
    members.remove(gone).kill();
    run(async {
        let clients = clients(&members);
        until("the others to go on", || async {
            clients[0].put("k", "10").await.map_err(|error| error.to_string())
        })
        .await;
        let before = clients[0].put("k", "11").await.unwrap() - 1;
        until("old history to be gone", || async {
            let past = pb::RangeRequest { revision: before, ..all("k") };
            match clients[1].kv.clone().range(past).await {
                Err(refused) if refused.code() == Code::OutOfRange => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    })
    .unwrap();
}
