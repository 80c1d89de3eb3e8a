//! What must be left out because nobody knows an address that it uses. Pure.
//!
//! User-data is planned with stand-ins for the addresses that are not known, and again with another
//! stand-in for each of them: where a plan differs, a stand-in would reach the machine. Those steps
//! are refused, by name. A comment that speaks of such an address makes no difference, and none is
//! made of it.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{Step, UnitStep};
use crate::wire::cloud_config::substitute::Addresses;

/// Addresses of documentation, which no machine has: for IPv4 and IPv6, private and public.
const STAND_INS: [[&str; 4]; 2] = [
    ["192.0.2.241", "2001:db8::f1:241", "192.0.2.242", "2001:db8::f1:242"],
    ["198.51.100.241", "2001:db8::f2:241", "198.51.100.242", "2001:db8::f2:242"],
];

/// Fills in what is not known; the address of the variable `varied` with its other stand-in.
pub(super) fn stand_in(known: &Addresses, varied: Option<&str>) -> Addresses {
    let variables = known.each().map(|(_, variable, _)| variable);
    let [private_ipv4, private_ipv6, public_ipv4, public_ipv6] =
        [0, 1, 2, 3].map(|at| STAND_INS[usize::from(varied == Some(variables[at]))][at].to_owned());
    known.clone().or(Addresses { private_ipv4, private_ipv6, public_ipv4, public_ipv6 })
}

/// Refuses the steps that are not the same in each of `others`, the plans with another stand-in for
/// a variable; of a unit all steps, so that it does not run half configured.
pub(super) fn leave_out(steps: Vec<Step>, others: &[(&'static str, Vec<Step>)]) -> Vec<Step> {
    let used = |step: &Step| -> BTreeSet<&'static str> {
        let differs = others.iter().filter(|(_, other)| !other.contains(step));
        differs.map(|(variable, _)| *variable).collect()
    };
    let mut units: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for step in &steps {
        if let Step::Unit { unit, .. } = step {
            units.entry(unit.clone()).or_default().extend(used(step));
        }
    }
    let mut named = BTreeSet::new();
    let refused = |step: Step| {
        let Step::Unit { unit, .. } = &step else {
            let used = used(&step);
            let refused = || Step::Refuse(in_words(&format!("{}: {}", what(&step), why(&used))));
            return Some(if used.is_empty() { step } else { refused() });
        };
        let used = &units[unit];
        if used.is_empty() {
            return Some(step);
        }
        let (unit, step) = (in_words(unit), UnitStep::Refuse(why(used)));
        named.insert(unit.clone()).then_some(Step::Unit { unit, step })
    };
    steps.into_iter().filter_map(refused).collect()
}

fn why(variables: &BTreeSet<&str>) -> String {
    let word = |variable: &&str| variable.trim_start_matches("COREOS_").to_ascii_lowercase();
    let words: Vec<_> = variables.iter().map(|it| format!("`${}`", word(it))).collect();
    let names: Vec<_> = variables.iter().map(|it| format!("`{it}`")).collect();
    format!(
        "it is left as it was, since it uses {}, which no source knows; set {} in \
         /etc/environment, for which this machine needs an address, and apply it again",
        words.join(", "),
        names.join(", ")
    )
}

/// Names what a step makes.
fn what(step: &Step) -> String {
    match step {
        Step::SetHostname(_) => "the host name".to_owned(),
        Step::EnsureUser(user) => format!("user `{}`", user.name),
        Step::SetKeys { user, .. } | Step::ImportKeys { user, .. } => format!("keys of `{user}`"),
        Step::WriteFile(file) => format!("file `{}`", file.path),
        Step::SetUpdateConf(_) => "file `/etc/coreos/update.conf`".to_owned(),
        Step::WriteHosts => "file `/etc/hosts`".to_owned(),
        Step::SetEnvironment(_) => "file `/etc/environment`".to_owned(),
        Step::Unit { unit, .. } => format!("unit `{unit}`"),
        Step::RunScript(_) => "the script".to_owned(),
        Step::Refuse(what) => what.clone(),
    }
}

/// Puts the words of user-data back where a name has a stand-in.
fn in_words(text: &str) -> String {
    let words = Addresses::default().each().map(|(word, _, _)| word);
    // Of these the words are private_ipv4, private_ipv6, public_ipv4, public_ipv6, in that order.
    words
        .iter()
        .zip(STAND_INS[0])
        .fold(text.to_owned(), |text, (word, stand_in)| text.replace(stand_in, &format!("${word}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::provision::plan::{Wishes, plan};
    use crate::wire::cloud_config::config::CloudConfig;
    use crate::wire::cloud_config::metadata::Metadata;
    use crate::wire::cloud_config::substitute::substitute;

    /// What is refused of a cloud-config on a machine without addresses, and how many steps less
    /// there are.
    fn refused(text: &str) -> (Vec<String>, usize) {
        let none = Addresses::default();
        let planned = |varied| {
            let text = substitute(text, &stand_in(&none, varied)).text;
            plan(Wishes {
                config: &CloudConfig::parse(&text).unwrap(),
                script: None,
                metadata: &Metadata::default(),
                addresses: &none,
                ssh_key_name: "a",
            })
        };
        let missing = substitute(text, &none).missing;
        let others: Vec<_> = missing.into_iter().map(|it| (it, planned(Some(it)))).collect();
        let one = planned(None);
        let before = one.len();
        let steps = leave_out(one, &others);
        let left = steps.len();
        let named = |step: Step| {
            if let Step::Unit { unit, step: UnitStep::Refuse(why) } = step {
                return Some(format!("{unit}: {why}"));
            }
            if let Step::Refuse(why) = step { Some(why) } else { None }
        };
        let named: Vec<_> = steps.into_iter().filter_map(named).collect();
        (named, before - left)
    }

    #[test]
    fn a_unit_that_uses_an_unknown_address_is_left_as_it_was_as_a_whole() {
        let text = "#cloud-config\ncoreos:\n  etcd2:\n    advertise-client-urls: \
                    http://$private_ipv4:2379\n  units:\n  - {name: etcd2.service, command: \
                    start}\n  - {name: fleet.service, command: start}\n";
        let (named, gone) = refused(text);
        assert_eq!(
            named,
            [
                "etcd2.service: it is left as it was, since it uses `$private_ipv4`, which no source \
              knows; set `COREOS_PRIVATE_IPV4` in /etc/environment, for which this machine needs \
              an address, and apply it again"
            ]
        );
        assert_eq!(gone, 2, "its drop-in, its mask and its start are one refusal");
    }

    #[test]
    fn a_file_is_named_by_its_path_in_the_words_of_user_data() {
        let text = "#cloud-config\nwrite_files:\n- {path: /etc/a, content: b}\n\
                    - {path: /etc/$public_ipv4, content: c}\n";
        let (named, _) = refused(text);
        assert_eq!(named.len(), 1);
        assert!(
            named[0].starts_with("file `/etc/$public_ipv4`: it is left as it was"),
            "{named:?}"
        );
    }

    #[test]
    fn a_comment_uses_nothing() {
        let text = "#cloud-config\n# $private_ipv4\nhostname: a # $public_ipv6\n";
        assert_eq!(refused(text), (Vec::new(), 0));
    }
}
