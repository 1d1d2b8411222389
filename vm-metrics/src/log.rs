//! Formats the log as text or JSON, one line for each event.

use std::fmt::{self, Debug, Write as _};
use std::io::{self, IsTerminal};
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;
use crate::model::Escaping;
use crate::terminal::printable_json;

/// Limit of a message or a field. Paths and names may be long, and a line may repeat with every tick.
const MAX_BYTES: usize = 16 << 10;

/// Starts the log on standard error. An invalid level becomes `error`.
pub(crate) fn start(level: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(quiet_libraries(level)).unwrap_or_else(|_| EnvFilter::new("error"));
    let text = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .fmt_fields(debug_fn(format_field));
    match format {
        LogFormat::Text => text.finish().with(filter_fn(is_news)).init(),
        LogFormat::Json => text.event_format(JsonLines).finish().with(filter_fn(is_news)).init(),
    }
}

/// The loader of eBPF programs logs more than all else, so its debug output needs its name in the level.
fn quiet_libraries(level: &str) -> String {
    let is_wordy =
        |part: &str| ["debug", "trace"].iter().any(|wordy| part.trim().eq_ignore_ascii_case(wordy));
    match level.split(',').any(is_wordy) && !level.contains("aya") {
        true => format!("{level},aya=info"),
        false => level.to_owned(),
    }
}

/// One object for each event: `timestamp`, `level`, `message`, and its fields.
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut object = Map::new();
        let now = humantime::format_rfc3339_micros(SystemTime::now());
        object.insert("timestamp".to_owned(), now.to_string().into());
        object.insert("level".to_owned(), event.metadata().level().as_str().into());
        event.record(&mut Fields(&mut object));
        let line = serde_json::to_string(&object).map_err(|_| fmt::Error)?;
        writeln!(writer, "{}", printable_json(&line))
    }
}

/// Adds the fields of an event to an object, as text.
struct Fields<'o>(&'o mut Map<String, Value>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Where a record of the crate log comes from.
        if field.name().starts_with("log.") {
            return;
        }
        let mut text = format!("{value:?}");
        if text.len() > MAX_BYTES {
            text.truncate(text.floor_char_boundary(MAX_BYTES));
            text.push('…');
        }
        self.0.insert(field.name().to_owned(), text.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// Of OpenTelemetry, keeps only records of data that a collector refused. The daemon itself logs all else once, and not with
/// every push.
fn is_news(metadata: &Metadata<'_>) -> bool {
    !metadata.target().starts_with("opentelemetry") || metadata.name().ends_with("PartialSuccess")
}

fn format_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    match field.name() {
        "message" => write!(Short::of(writer), "{value:?}"),
        // Where a record of the crate log comes from.
        name if name.starts_with("log.") => Ok(()),
        name => {
            write!(writer, " {name}=")?;
            write!(Short::of(writer), "{value:?}")
        }
    }
}

/// Escapes a text, and cuts it at the limit.
struct Short<W> {
    inner: Escaping<W>,
    left: usize,
}

impl<W: fmt::Write> Short<W> {
    fn of(writer: W) -> Self {
        Self { inner: Escaping(writer), left: MAX_BYTES }
    }
}

impl<W: fmt::Write> fmt::Write for Short<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() <= self.left {
            self.left -= text.len();
            return self.inner.write_str(text);
        }
        let is_first = self.left > 0;
        let shown = &text[..text.floor_char_boundary(self.left)];
        self.left = 0;
        self.inner.write_str(shown)?;
        if is_first { self.inner.write_str("…") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: impl FnOnce(), ansi: bool) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_target(false)
            .with_ansi(ansi)
            .without_time()
            .with_writer(move || writer.clone())
            .fmt_fields(debug_fn(format_field))
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn text_of_others_stays_on_its_line() {
        let evil = "x\nERROR forged\r\u{1b}]0;title\u{7}\u{9b}2J\u{2028}\u{202e}";
        let shown = "x\\nERROR forged\\r\\u{1b}]0;title\\u{7}\\u{9b}2J\\u{2028}\\u{202e}";
        assert_eq!(logged(|| tracing::info!("name {evil}"), false), format!(" INFO name {shown}\n"));
        assert_eq!(logged(|| tracing::info!(name = %evil, "m"), false), format!(" INFO m name={shown}\n"));
        let colored = logged(|| tracing::info!("name {evil}"), true);
        assert!(colored.contains(shown) && colored.lines().count() == 1, "{colored:?}");
    }

    #[test]
    fn a_line_of_json_has_message_and_fields() {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).event_format(JsonLines).finish();
        let evil = "x\n\u{9b}2J\u{202e}";
        tracing::subscriber::with_default(subscriber, || tracing::warn!(name = evil, "said {evil}"));
        let line = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        assert!(line.lines().count() == 1 && !line.contains(['\u{9b}', '\u{202e}']), "{line:?}");
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&event["level"], &event["name"]), (&"WARN".into(), &evil.into()));
        assert_eq!(event["message"], format!("said {evil}"));
        assert!(event["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
    }

    #[test]
    fn the_ebpf_loader_is_quiet_unless_asked() {
        for (level, filter) in [
            ("debug", "debug,aya=info"),
            ("info,TRACE", "info,TRACE,aya=info"),
            ("debug,aya=debug", "debug,aya=debug"),
            ("info", "info"),
            ("info,vm_metrics::sources=debug", "info,vm_metrics::sources=debug"),
        ] {
            assert_eq!(quiet_libraries(level), filter);
            assert!(EnvFilter::try_new(filter).is_ok(), "{filter}");
        }
    }

    #[test]
    fn a_long_message_is_cut() {
        let long = "é".repeat(MAX_BYTES);
        let line = logged(|| tracing::info!("{long}{long}"), false);
        assert!(line.ends_with("é…\n") && line.len() < MAX_BYTES + 20, "{}", line.len());
    }
}
