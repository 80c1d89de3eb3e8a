//! What load balancers and supervisors ask a member, as recorded from etcd 3.5.30.

use testbed::etcd::{ANSWER, Member};
use testbed::http::Request;
use testbed::wait;

fn said(member: &Member, path: &str) -> (u16, String) {
    let answer = member.get(path).unwrap();
    (answer.status, answer.body)
}

fn ok(body: &str) -> (u16, String) {
    (200, body.to_owned())
}

#[test]
fn a_member_that_is_well_says_so_in_each_form() {
    let site = super::site("health-well");
    let member = super::alone(&site);
    let well = ok("{\"health\":\"true\",\"reason\":\"\"}");
    assert_eq!(said(&member, "/health"), well);
    assert_eq!(said(&member, "/health?serializable=true"), well);
    assert_eq!(said(&member, "/livez"), ok("ok\n"));
    assert_eq!(said(&member, "/livez?verbose"), ok("[+]serializable_read ok\nok\n"));
    assert_eq!(said(&member, "/readyz"), ok("ok\n"));
    let all = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n";
    assert_eq!(said(&member, "/readyz?verbose"), ok(all));
    let fewer = "/readyz?verbose&exclude=linearizable_read&exclude=non_learner&exclude=unknown";
    assert_eq!(said(&member, fewer), ok("[+]data_corruption ok\n[+]serializable_read ok\nok\n"));
    assert_eq!(said(&member, "/readyz/linearizable_read"), ok("ok\n"));
    assert_eq!(said(&member, "/readyz/unknown").0, 404);
    assert_eq!(
        said(&member, "/version"),
        ok("{\"etcdserver\":\"3.5.30\",\"etcdcluster\":\"3.5.0\"}")
    );
    for path in ["/health", "/livez", "/readyz"] {
        let refused = member.ask(&Request { method: "POST", path, body: None }).unwrap();
        assert_eq!((refused.status, refused.header("allow")), (405, Some("GET")), "{path}");
    }
}

#[test]
fn a_member_without_a_majority_lives_and_is_not_ready() {
    let site = super::site("health-alone");
    let mut members = super::started(&site, &["a", "b", "c"]);
    members[1].kill();
    members[2].kill();
    let member = &members[0];
    wait::until("the member to notice", ANSWER, || match said(member, "/health") {
        (503, body) if body == "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
    assert_eq!(said(member, "/health?serializable=true").0, 200);
    assert_eq!(said(member, "/livez"), ok("ok\n"));
    let lines = "[+]data_corruption ok\n[+]serializable_read ok\n[-]linearizable_read failed: etcdserver: request timed out\n[+]non_learner ok\n\n";
    assert_eq!(said(member, "/readyz"), (503, lines.to_owned()));
    assert_eq!(said(member, "/readyz?exclude=linearizable_read"), ok("ok\n"));
    assert_eq!(said(member, "/readyz/linearizable_read").0, 503);
}
