//! Where the program says what it does: lines on stderr, which systemd keeps.

use std::fmt;
use std::sync::OnceLock;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Who reads the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The journal: a priority in front (`sd-daemon(3)`), no time, which the journal adds.
    Journal,
    /// A person at a terminal.
    Person,
}

/// Gives the process's log another filter; tells whether that was done.
type Change = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

/// What changes the log of this process. There is one log, as there is one stderr.
static CHANGE: OnceLock<Change> = OnceLock::new();

/// Starts to log at `level` and above; a second call changes nothing.
pub fn start(level: &str, reader: Reader) {
    let filter = EnvFilter::try_new(directives(level)).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr);
    // The filter is what can be changed, so it goes around all the rest.
    let (started, change): (_, Change) = match reader {
        Reader::Journal => {
            let builder = builder.event_format(Prefixed).with_env_filter(filter);
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            (builder.try_init(), Box::new(move |filter| handle.reload(filter).is_ok()))
        }
        Reader::Person => {
            let builder = builder.with_target(false).compact().with_env_filter(filter);
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            (builder.try_init(), Box::new(move |filter| handle.reload(filter).is_ok()))
        }
    };
    // The only failure is that somebody was first, and then his log is the one to change.
    if started.is_ok() {
        CHANGE.get_or_init(|| change);
    }
}

/// Logs at `level` and above from now on; false where there is no log, or no such level.
pub fn change(level: &str) -> bool {
    let Ok(filter) = EnvFilter::try_new(directives(level)) else { return false };
    let changed = CHANGE.get().is_some_and(|change| change(filter));
    if changed {
        tracing::info!(level, "another log level");
    }
    changed
}

/// The consensus library calls its every step an event, and says five times why it ends; our own
/// events say what matters of them.
fn directives(level: &str) -> String {
    let library = if level == "debug" { "warn" } else { "off" };
    format!("{level},openraft={library}")
}

/// `<6>message field=value`, so that `journalctl -p` works.
#[derive(Debug)]
struct Prefixed;

impl<S, N> FormatEvent<S, N> for Prefixed
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Returns the syslog priority of a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_heard_where_somebody_looks_for_a_mistake() {
        assert_eq!(directives("info"), "info,openraft=off");
        assert_eq!(directives("debug"), "debug,openraft=warn");
        assert!(EnvFilter::try_new(directives("info")).is_ok());
    }

    #[test]
    fn what_a_human_must_look_at_is_an_error_to_syslog_too() {
        assert_eq!(priority(Level::ERROR), 3);
        assert_eq!(priority(Level::TRACE), 7);
    }
}
