//! A store that has outgrown its quota: what is refused, what still works, and the way out.

use corebox::wire::etcd::v3::etcdserverpb as pb;
use corebox::wire::etcd::v3::etcdserverpb::alarm_request::AlarmAction;
use corebox::wire::etcd::v3::etcdserverpb::request_op::Request;
use testbed::etcd::Member;
use testbed::etcd_v3::{Client, end_of, put, run};
use tonic::{Code, Status};

use super::v3::{all, clients, id, until};

const NAMES: &[&str] = &["a", "b", "c"];
const FULL: (Code, &str) = (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
const QUOTA_BYTES: usize = 64 << 10;

fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.expect_err("it was done");
    (status.code(), status.message().to_owned())
}

fn is_full<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let (code, text) = refusal(answer);
    assert_eq!((code, text.as_str()), FULL);
}

async fn alarm(
    client: &Client,
    action: AlarmAction,
    alarm: pb::AlarmType,
    member_id: u64,
) -> Vec<pb::AlarmMember> {
    let request = pb::AlarmRequest { action: action.into(), member_id, alarm: alarm.into() };
    client.maintenance.clone().alarm(request).await.unwrap().into_inner().alarms
}

async fn list(client: &Client) -> Vec<pb::AlarmMember> {
    alarm(client, AlarmAction::Get, pb::AlarmType::None, 0).await
}

async fn status(client: &Client) -> pb::StatusResponse {
    client.maintenance.clone().status(pb::StatusRequest {}).await.unwrap().into_inner()
}

/// Starts members of which some have a quota.
fn started(site: &testbed::etcd::Site, quotas: &[Option<usize>]) -> Vec<Member> {
    let with_quota = |(member, quota): (Member, &Option<usize>)| match quota {
        Some(bytes) => member.flag("quota-backend-bytes", bytes.to_string()),
        None => member,
    };
    let members = site.cluster(&NAMES[..quotas.len()]).unwrap();
    let mut members: Vec<_> = members.into_iter().zip(quotas).map(with_quota).collect();
    for member in &mut members {
        member.start().unwrap();
    }
    for member in &mut members {
        member.healthy().unwrap();
    }
    members
}

#[test]
fn a_full_store_refuses_what_takes_room_until_it_has_room_and_is_disarmed() {
    let site = super::site("v3-full");
    let mut members = started(&site, &[Some(QUOTA_BYTES); 3]);
    let value = "x".repeat(1 << 10);
    let full = run(async {
        let clients = clients(&members);
        assert_eq!(status(&clients[0]).await.db_size_quota, 64 << 10);
        let mut written = 0;
        let refused = loop {
            match clients[0].put(&format!("k/{written:03}"), &value).await {
                Ok(_) => written += 1,
                Err(refused) => break refused,
            }
            assert!(written < 200, "there is no end to it");
        };
        is_full::<()>(Err(refused));
        assert!(written > 50, "only {written} fitted");
        let full = id(&clients[0]).await;
        let raised = pb::AlarmMember { member_id: full, alarm: pb::AlarmType::Nospace.into() };
        for client in &clients {
            assert_eq!(list(client).await, [raised]);
            is_full(client.put("small", "").await);
            let grant = pb::LeaseGrantRequest { ttl: 60, id: 0 };
            is_full(client.lease.clone().lease_grant(grant).await);
            let op = Request::RequestPut(pb::PutRequest { key: "t".into(), ..put() });
            let failure = vec![pb::RequestOp { request: Some(op) }];
            let txn = pb::TxnRequest { failure, ..Default::default() };
            is_full(client.kv.clone().txn(txn).await);
            let read = client.kv.clone().range(all("k/")).await.unwrap().into_inner();
            assert_eq!(read.count, written);
            let said = status(client).await;
            assert_eq!(said.errors, [format!("memberID:{full} alarm:NOSPACE ")]);
            assert!((50 << 10..64 << 10).contains(&said.db_size), "{}", said.db_size);
            assert_eq!(said.db_size, said.db_size_in_use, "nothing was overwritten");
        }
        full
    })
    .unwrap();
    for member in &members {
        let health = member.get("/health").unwrap();
        assert_eq!(health.status, 503);
        assert_eq!(health.body, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n");
        assert_eq!(member.get("/health?exclude=NOSPACE").unwrap().status, 200);
        assert_eq!(member.get("/v2/keys").unwrap().status, 200, "v2 has no quota");
    }
    // The alarm is in the log: a member that comes back knows it.
    members[2].kill();
    members[2].start().unwrap();
    run(async {
        let clients = clients(&members);
        until("the alarm after a restart", || async {
            let request = pb::AlarmRequest::default();
            let alarms = clients[2].maintenance.clone().alarm(request).await;
            let alarms = alarms.map_err(|error| error.to_string())?.into_inner().alarms;
            (alarms.len() == 1).then_some(()).ok_or_else(|| format!("{alarms:?}"))
        })
        .await;
        let delete = pb::DeleteRangeRequest {
            key: "k/".into(),
            range_end: end_of("k/"),
            ..Default::default()
        };
        let deleted = clients[1].kv.clone().delete_range(delete).await.unwrap().into_inner();
        let revision = deleted.header.unwrap().revision;
        let compact = pb::CompactionRequest { revision, physical: true };
        clients[1].kv.clone().compact(compact).await.unwrap();
        is_full(clients[1].put("small", "").await);
        for client in &clients {
            until("room to be given back", || async {
                let said = status(client).await;
                (said.db_size < 16 << 10).then_some(()).ok_or_else(|| said.db_size.to_string())
            })
            .await;
        }
        // Taking back another's alarm takes back nothing.
        let none = alarm(&clients[1], AlarmAction::Deactivate, pb::AlarmType::Nospace, 1).await;
        assert_eq!(none, []);
        is_full(clients[1].put("small", "").await);
        let cleared =
            alarm(&clients[1], AlarmAction::Deactivate, pb::AlarmType::Nospace, full).await;
        assert_eq!(cleared.len(), 1);
        for client in &clients {
            client.put("small", "").await.unwrap();
            assert_eq!(list(client).await, []);
        }
    })
    .unwrap();
    for member in &mut members {
        member.healthy().unwrap();
    }
}

#[test]
fn a_member_with_a_smaller_quota_stops_the_writes_of_all() {
    let site = super::site("v3-full-one");
    let members = started(&site, &[Some(16 << 10), Some(2 << 20), None]);
    run(async {
        let clients = clients(&members);
        // It fits where it is asked for.
        clients[1].put("large", &"x".repeat(32 << 10)).await.unwrap();
        until("writes to be refused", || async {
            match clients[1].put("small", "").await {
                Ok(_) => Err("it was done".to_owned()),
                Err(refused) => {
                    is_full::<()>(Err(refused));
                    Ok(())
                }
            }
        })
        .await;
        let raised = list(&clients[2]).await;
        assert_eq!(raised.len(), 1);
        assert_eq!(raised[0].member_id, id(&clients[0]).await);
        // Taken back too early, it comes back with the next write.
        let full = raised[0].member_id;
        alarm(&clients[2], AlarmAction::Deactivate, pb::AlarmType::Nospace, full).await;
        until("the alarm to be raised again", || async {
            is_full(clients[0].put("small", "").await);
            let seen = list(&clients[1]).await;
            if seen == raised { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    })
    .unwrap();
}

#[test]
fn an_alarm_of_members_that_differ_refuses_all_but_alarms() {
    let site = super::site("v3-corrupt");
    let member = super::alone(&site);
    run(async {
        let client = Client::new(member.client);
        client.put("k", "1").await.unwrap();
        let own = id(&client).await;
        let corrupt = pb::AlarmType::Corrupt;
        assert_eq!(alarm(&client, AlarmAction::Activate, corrupt, own).await.len(), 1);
        let differ = (Code::DataLoss, "etcdserver: corrupt cluster".to_owned());
        assert_eq!(refusal(client.put("k", "2").await), differ);
        assert_eq!(refusal(client.get("k").await), differ);
        assert_eq!(list(&client).await.len(), 1);
        let other = alarm(&client, AlarmAction::Get, pb::AlarmType::Nospace, 0).await;
        assert_eq!(other, [], "another kind was asked for");
        assert_eq!(member.get("/health").unwrap().status, 503);
        assert_eq!(alarm(&client, AlarmAction::Deactivate, corrupt, own).await.len(), 1);
        assert_eq!(client.get("k").await.unwrap(), "1");
    })
    .unwrap();
}
