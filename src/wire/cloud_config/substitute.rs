//! `$private_ipv4` and its siblings, filled in before anything else looks at user-data.

/// The addresses of this machine, as text; an empty one is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The address that other machines of the cluster use.
    pub private_ipv4: String,
    /// The same, IPv6.
    pub private_ipv6: String,
    /// The address that the world uses.
    pub public_ipv4: String,
    /// The same, IPv6.
    pub public_ipv6: String,
}

impl Addresses {
    /// Returns the word, the environment variable and the value of each, in the order in which
    /// `/etc/environment` has them.
    pub fn each(&self) -> [(&'static str, &'static str, &str); 4] {
        [
            ("private_ipv4", "COREOS_PRIVATE_IPV4", &self.private_ipv4),
            ("private_ipv6", "COREOS_PRIVATE_IPV6", &self.private_ipv6),
            ("public_ipv4", "COREOS_PUBLIC_IPV4", &self.public_ipv4),
            ("public_ipv6", "COREOS_PUBLIC_IPV6", &self.public_ipv6),
        ]
    }

    /// Fills in from `fallback` what is not known.
    #[must_use]
    pub fn or(self, fallback: Self) -> Self {
        let pick = |own: String, other: String| if own.is_empty() { other } else { own };
        Self {
            private_ipv4: pick(self.private_ipv4, fallback.private_ipv4),
            private_ipv6: pick(self.private_ipv6, fallback.private_ipv6),
            public_ipv4: pick(self.public_ipv4, fallback.public_ipv4),
            public_ipv6: pick(self.public_ipv6, fallback.public_ipv6),
        }
    }

    /// Returns the variables that are known, in their order.
    pub fn variables(&self) -> Vec<(String, String)> {
        let known = self.each().into_iter().filter(|(_, _, value)| !value.is_empty());
        known.map(|(_, name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// User-data with its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Substituted {
    /// The text.
    pub text: String,
    /// The environment variables of the addresses that were wanted and are not known.
    pub missing: Vec<&'static str>,
}

/// Fills in addresses: `$private_ipv4` becomes the address, `\$private_ipv4` the bare word.
pub fn substitute(text: &str, addresses: &Addresses) -> Substituted {
    let mut out = String::with_capacity(text.len());
    let mut missing = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        let found = addresses.each().into_iter().find(|(word, _, _)| from[1..].starts_with(word));
        let Some((word, variable, value)) = found else {
            out.push_str(&rest[..=at]);
            rest = &from[1..];
            continue;
        };
        if let Some(before) = before.strip_suffix('\\') {
            out.push_str(before);
            out.push('$');
            out.push_str(word);
        } else {
            out.push_str(before);
            out.push_str(value);
            if value.is_empty() && !missing.contains(&variable) {
                missing.push(variable);
            }
        }
        rest = &from[1 + word.len()..];
    }
    out.push_str(rest);
    Substituted { text: out, missing }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Addresses {
        Addresses {
            private_ipv4: "192.0.2.3".to_owned(),
            private_ipv6: "fe00:1234::".to_owned(),
            public_ipv4: "192.0.2.203".to_owned(),
            public_ipv6: "fe00:5678::".to_owned(),
        }
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(substitute(text, &known()).text, expected);
    }

    #[test]
    fn every_address_is_filled_in_wherever_it_stands() {
        check("addr: $private_ipv4:4001", "addr: 192.0.2.3:4001");
        check("$public_ipv4$public_ipv4", "192.0.2.203192.0.2.203");
        check("[$private_ipv6] [$public_ipv6]", "[fe00:1234::] [fe00:5678::]");
        check("#!/bin/sh\necho $public_ipv4é\n", "#!/bin/sh\necho 192.0.2.203é\n");
    }

    #[test]
    fn a_backslash_keeps_the_word() {
        check(r"\$private_ipv4", "$private_ipv4");
        check(r"\\$private_ipv4", r"\$private_ipv4");
        check(r"addr: \$public_ipv4 $public_ipv4", "addr: $public_ipv4 192.0.2.203");
    }

    #[test]
    fn other_words_stay() {
        check(
            "$unknown_ipv4 ${private_ipv4} $ $$private_ipv4 \\$HOME",
            "$unknown_ipv4 ${private_ipv4} $ $192.0.2.3 \\$HOME",
        );
    }

    #[test]
    fn what_the_source_does_not_know_comes_from_the_environment() {
        let source = Addresses { public_ipv4: "203.0.113.1".to_owned(), ..Addresses::default() };
        let both = source.or(known());
        assert_eq!(both.public_ipv4, "203.0.113.1");
        assert_eq!(both.private_ipv4, "192.0.2.3");
    }

    #[test]
    fn what_nobody_knows_is_empty_and_named() {
        let done = substitute("a $private_ipv4 b $private_ipv4 c", &Addresses::default());
        assert_eq!(done.text, "a  b  c");
        assert_eq!(done.missing, ["COREOS_PRIVATE_IPV4"]);
        let kept = substitute(r"\$private_ipv4", &Addresses::default());
        assert_eq!(kept.missing, Vec::<&str>::new());
    }

    #[test]
    fn the_environment_file_has_what_is_known_in_this_order() {
        let names: Vec<_> = known().variables().into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "COREOS_PRIVATE_IPV4",
                "COREOS_PRIVATE_IPV6",
                "COREOS_PUBLIC_IPV4",
                "COREOS_PUBLIC_IPV6"
            ]
        );
        assert_eq!(Addresses::default().variables(), []);
    }
}
