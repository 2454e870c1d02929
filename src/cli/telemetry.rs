//! Logs: readable on a terminal, priorities for the journal under systemd, always on stderr.

use std::{
    fmt,
    io::{IsTerminal, Write},
    os::fd::AsFd,
};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    filter::LevelFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Writer},
    },
    registry::LookupSpan,
};

use super::{Exit, Failure};
use crate::publish;

/// Starts logging with `filter`, else `RUST_LOG`, else `default`.
pub(super) fn init(filter: Option<&str>, default: &str) -> Result<(), Failure> {
    let from_environment = std::env::var("RUST_LOG").ok().filter(|f| !f.is_empty());
    let text =
        filter.map(str::to_owned).or(from_environment).unwrap_or_else(|| format!("{default},{}", publish::LOGGED));
    let wrong = |why: &str| {
        let remedy =
            "use a level (error, warn, info, debug, trace), or levels of parts as in `groundd::ingest=debug,warn`";
        Failure::new(Exit::Usage, format!("the log filter `{text}` is wrong ({why}); {remedy}"))
    };
    if let Some(word) = unknown_level(&text) {
        return Err(wrong(&format!("`{word}` is no level")));
    }
    let filter = EnvFilter::builder().parse(&text).map_err(|e| wrong(&e.to_string()))?;
    // A line that cannot be written is lost, and nobody can be told: to report it on stderr as well would end the task
    // that logs in a panic.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    if under_journal() {
        let lines = Format::default().without_time().with_level(false).with_ansi(false);
        builder.with_ansi(false).event_format(JournalLines(lines)).init();
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
    }
    Ok(())
}

/// A word in a filter that stands where a level does and is none. It would be taken for a part of a program, and nothing else be
/// logged at all.
fn unknown_level(filter: &str) -> Option<&str> {
    let words = filter
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty() && !word.contains(['=', ':', '[', ']', '{', '}']));
    words.into_iter().find(|word| word.parse::<LevelFilter>().is_err() && *word != "groundd")
}

/// The last words of a failed command.
pub(super) fn fatal(message: &str) {
    let priority = if under_journal() { "<3>" } else { "" };
    // Nobody is left to tell if stderr is gone.
    writeln!(std::io::stderr(), "{priority}groundd: {message}").ok();
}

/// Whether stderr is the journal. systemd names what it connected to that; who inherits the name may write elsewhere.
fn under_journal() -> bool {
    std::env::var("JOURNAL_STREAM").is_ok_and(|journal| is_named(&journal, std::io::stderr()))
}

/// Whether `name`, a device and an inode as in systemd.exec(5), is that of `file`.
fn is_named(name: &str, file: impl AsFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|file| name == format!("{}:{}", file.st_dev, file.st_ino))
}

/// One event a line, led by its priority as in sd-daemon(3).
struct JournalLines(Format<Full, ()>);

impl<S, N> FormatEvent<S, N> for JournalLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_told_from_one() {
        for filter in [
            "debug",
            "INFO",
            "off",
            "groundd",
            "groundd::ingest=debug,warn",
            "rumqttc=off, info",
            "groundd[batch]=debug",
            "",
        ] {
            assert_eq!(unknown_level(filter), None, "{filter}");
        }
        for (filter, word) in
            [("verbose", "verbose"), ("inf", "inf"), ("groundd=debug,WARNING", "WARNING"), ("foo bar", "foo bar")]
        {
            assert_eq!(unknown_level(filter), Some(word));
        }
    }

    #[test]
    fn a_file_is_known_by_its_device_and_inode() {
        let (file, other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let metadata = file.metadata().unwrap();
        let name = format!("{}:{}", metadata.dev(), metadata.ino());
        assert!(is_named(&name, &file) && !is_named(&name, &other) && !is_named("", &file));
    }
}
