//! `tour`: runs what docs/tour.md tells a newcomer to type, so that it stays true.
//!
//! ````text
//! ```sh        run by bash, in the order of the page; what a block exports, the next one has
//! ```output    what the block before it must have printed, line by line; `…` stands for anything,
//!              alone on a line for any number of lines
//! ```          shown only, as anything that is marked otherwise
//! ````

use std::fs;
use std::path::{Path, PathBuf};

use crate::build::Build;
use crate::run::{Failure, Step, root, say};

/// The page.
const PAGE: &str = "docs/tour.md";
/// What stands for anything.
const ANY: &str = "…";
/// How long a block may take, in seconds: building on a slow computer is the longest.
const BLOCK_SECONDS: &str = "600";

/// Something to run, and what it must say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Block {
    /// Where it begins on the page.
    line: usize,
    script: String,
    says: Option<String>,
}

/// Takes the cluster of the tour away, however the tour ends.
#[derive(Debug)]
struct Down;

impl Drop for Down {
    fn drop(&mut self) {
        if let Err(failure) = Build::Dev.run("testbed", &["down"], &[]) {
            say(&format!("the tour's cluster stays: {failure}"));
        }
    }
}

/// A file for what the blocks export, which is gone afterwards: it is somebody's environment.
#[derive(Debug)]
struct State(PathBuf);

impl State {
    fn fresh() -> Self {
        let state = Self(root().join("target/tour.sh"));
        state.remove();
        state
    }

    fn remove(&self) {
        // Usually there is none.
        fs::remove_file(&self.0).ok();
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Walks through the page.
pub(crate) fn walk() -> Result<(), Failure> {
    no_lab_runs()?;
    let text = fs::read_to_string(root().join(PAGE))
        .map_err(|error| Failure::First(format!("cannot read {PAGE}: {error}")))?;
    let blocks = blocks(&text).map_err(Failure::First)?;
    Build::Dev.programs()?;
    let down = Down;
    let state = State::fresh();
    let walked = blocks.iter().try_for_each(|block| run(block, &state));
    drop(down);
    walked
}

/// Refuses to start where the last block, or we, would take somebody's cluster away.
fn no_lab_runs() -> Result<(), Failure> {
    let labs = root().join("target/lab");
    let left = |lab: &Path| {
        let owner = fs::read_to_string(lab.join("owner.json")).unwrap_or_default();
        owner.contains("\"nobody\"") || owner.contains("\"server\"")
    };
    let labs = fs::read_dir(labs).into_iter().flatten().flatten();
    match labs.map(|entry| entry.path()).find(|lab| left(lab)) {
        None => Ok(()),
        Some(lab) => Err(Failure::First(format!(
            "the tour starts a cluster of its own, and there is one in {}; `cargo xtask down` \
             takes it away",
            lab.display()
        ))),
    }
}

fn run(block: &Block, state: &State) -> Result<(), Failure> {
    for line in block.script.lines() {
        say(&format!("$ {line}"));
    }
    // The exports of a block outlive its shell.
    let script = format!(
        "if [ -e \"$TOUR_STATE\" ]; then . \"$TOUR_STATE\"; fi\n\
         trap 'export -p > \"$TOUR_STATE\"' EXIT\n{}",
        block.script
    );
    let step = Step::line(&format!("timeout --kill-after=5 {BLOCK_SECONDS} bash -euo pipefail -c"));
    let heard = step.args([&script]).env("TOUR_STATE", &state.0).heard()?;
    let at = format!("{PAGE} line {}", block.line);
    if !heard.well {
        return Err(Failure::First(format!("{at}: the block failed")));
    }
    match &block.says {
        Some(says) if !matches(says, &heard.text) => Err(Failure::First(format!(
            "{at}: the block printed\n\n{}\n\nand the page says\n\n{says}",
            heard.text.trim_end()
        ))),
        _ => Ok(()),
    }
}

/// Finds the blocks to run.
fn blocks(page: &str) -> Result<Vec<Block>, String> {
    let mut found: Vec<Block> = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(kind) = line.trim_start().strip_prefix("```") else { continue };
        let inside = lines.by_ref().map(|(_, line)| line);
        let inside: Vec<_> = inside.take_while(|line| line.trim() != "```").collect();
        let text = inside.join("\n");
        match kind.trim() {
            "sh" => found.push(Block { line: at + 1, script: text, says: None }),
            "output" => {
                let before = found.last_mut().filter(|block| block.says.is_none());
                let lost = || format!("{PAGE} line {}: the output of which block?", at + 1);
                before.ok_or_else(lost)?.says = Some(text);
            }
            _ => {}
        }
    }
    if found.is_empty() { Err(format!("{PAGE} has nothing to run")) } else { Ok(found) }
}

/// Whether a text is as a pattern says, blank lines around them aside.
fn matches(pattern: &str, text: &str) -> bool {
    let lines = |text: &str| -> Vec<String> {
        text.trim_matches('\n').lines().map(|line| line.trim_end().to_owned()).collect()
    };
    let (pattern, text) = (lines(pattern), lines(text));
    all_match(&pattern, &text)
}

fn all_match(pattern: &[String], text: &[String]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((first, rest)) if first.trim() == ANY => {
            (0..=text.len()).any(|skipped| all_match(rest, &text[skipped..]))
        }
        Some((first, rest)) => {
            text.split_first().is_some_and(|(line, more)| one(first, line) && all_match(rest, more))
        }
    }
}

/// Whether one line is as its pattern says.
fn one(pattern: &str, line: &str) -> bool {
    let Some((head, rest)) = pattern.split_once(ANY) else { return pattern == line };
    let Some(line) = line.strip_prefix(head) else { return false };
    let ends = line.char_indices().map(|(at, _)| at).chain([line.len()]);
    ends.into_iter().any(|at| one(rest, &line[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "\
Words.

```sh
echo one two
```
```output
one …
```

```
not run
```

```sh
true
```
";

    #[test]
    fn only_what_is_marked_is_run() {
        let found = blocks(EXAMPLE).unwrap();
        let says = Some("one …".to_owned());
        assert_eq!(
            found,
            [
                Block { line: 3, script: "echo one two".to_owned(), says },
                Block { line: 14, script: "true".to_owned(), says: None },
            ]
        );
        assert!(blocks("nothing\n").is_err());
        assert!(blocks("```output\nlost\n```\n").is_err());
    }

    #[test]
    fn an_ellipsis_stands_for_anything() {
        for (pattern, text, expected) in [
            ("one …", "one two\n", true),
            ("one …", "one\n", false),
            ("…\nlast", "first\nsecond\nlast\n", true),
            ("…\nlast", "last\nnot\n", false),
            ("a…c…e", "abcde", true),
            ("a…c", "abcd", false),
            ("exact", "exact  \n\n", true),
            ("", "something", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn the_page_has_a_cluster_and_takes_it_down() {
        let page = fs::read_to_string(root().join(PAGE)).unwrap();
        let blocks = blocks(&page).unwrap();
        let has = |words: &str| blocks.iter().any(|block| block.script.contains(words));
        assert!(has("cargo xtask up --local") && has("cargo xtask down"));
    }
}
