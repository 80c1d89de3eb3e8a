//! The cloud-configs and units of `testbed/inputs`, with their blanks filled in.

/// Three store nodes that find each other through `url`.
#[must_use]
pub fn cluster(url: &str) -> String {
    include_str!("../inputs/cluster.yml").replace("DISCOVERY_URL", url)
}

/// A node that only runs units, for a store at `urls` (separated by commas).
#[must_use]
pub fn fleet_only(urls: &str) -> String {
    include_str!("../inputs/fleet-only.yml").replace("STORE_URLS", urls)
}

/// One node that uses most of the schema.
pub const FULL: &str = include_str!("../inputs/full.yml");

/// A template whose instances do not share a machine.
pub const EXAMPLE: (&str, &str) = ("example@.service", include_str!("../inputs/example@.service"));

/// A unit that runs on every store node.
pub const EXAMPLE_GLOBAL: (&str, &str) =
    ("example-global.service", include_str!("../inputs/example-global.service"));

/// A template whose instances may share a machine.
pub const PLAIN: (&str, &str) = (
    "plain@.service",
    "[Unit]\nDescription=A plain unit, instance %i\n\n\
     [Service]\nExecStart=/usr/bin/sleep infinity\nRestart=always\n",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_blank_stays() {
        assert!(!cluster("http://10.99.0.1:8087/token").contains("DISCOVERY_URL"));
        assert!(!fleet_only("http://10.99.0.11:2379").contains("STORE_URLS"));
    }
}
