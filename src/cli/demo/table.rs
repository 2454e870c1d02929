//! What a subscriber sees, as a table: drawn in place on a terminal, printed now and then elsewhere.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write},
    time::Duration,
};

use comfy_table::{ContentArrangement, Table as Grid, presets};
use console::{Term, measure_text_width};
use serde_json::Value;
use tokio::time::Instant;

use crate::cli::{
    Exit, Failure,
    broker::{SEPARATOR, Subscription},
};

/// How often a terminal is redrawn, and how often a log gets another table.
const REDRAW: Duration = Duration::from_millis(250);
const REPRINT: Duration = Duration::from_secs(3);
/// Boxes named in one cell; more are counted.
const BOXES: usize = 3;

/// The table and where its rows come from.
pub(super) struct Table {
    subscription: Subscription,
    banner: String,
    term: Option<Term>,
    started: Instant,
    drawn: Option<Instant>,
    lines_drawn: usize,
    statuses: BTreeMap<String, String>,
    /// Messages and the latest message, by camera.
    cameras: BTreeMap<String, (u64, Value)>,
}

impl Table {
    pub(super) fn new(subscription: Subscription, banner: String) -> Self {
        let term = Some(Term::stdout()).filter(Term::is_term);
        Self {
            subscription,
            banner,
            term,
            started: Instant::now(),
            drawn: None,
            lines_drawn: 0,
            statuses: BTreeMap::new(),
            cameras: BTreeMap::new(),
        }
    }

    /// Takes in what has arrived and draws when it is time.
    pub(super) async fn step(&mut self) -> Result<(), Failure> {
        let line = tokio::time::timeout(Duration::from_millis(100), self.subscription.next()).await;
        match line {
            Ok(Ok(Some(line))) => self.take(&line),
            Ok(_) => return Err(Failure::new(Exit::Unavailable, "mosquitto_sub ended; is the broker still there?")),
            Err(_) => {}
        }
        let every = if self.term.is_some() { REDRAW } else { REPRINT };
        let has_news = self.term.is_some() || !self.cameras.is_empty();
        if has_news && self.drawn.is_none_or(|at| at.elapsed() >= every) {
            self.draw();
        }
        Ok(())
    }

    /// Draws the final state.
    pub(super) fn finish(&mut self) {
        self.draw();
    }

    fn take(&mut self, line: &str) {
        let Some((topic, payload)) = line.split_once(SEPARATOR) else { return };
        match topic.split('/').collect::<Vec<_>>()[..] {
            ["groundd", camera, "detections"] => {
                if let Ok(message) = serde_json::from_str(payload) {
                    let (count, latest) = self.cameras.entry(camera.to_owned()).or_default();
                    *count += 1;
                    *latest = message;
                }
            }
            ["groundd", "status"] => {
                self.statuses.insert("groundd".to_owned(), payload.to_owned());
            }
            ["groundd", camera, "status"] => {
                let state = serde_json::from_str::<Value>(payload).unwrap_or_default();
                let reason = state["reason"].as_str().map(|r| format!(" ({r})")).unwrap_or_default();
                let text = format!("{}{reason}", state["state"].as_str().unwrap_or("?"));
                self.statuses.insert(camera.to_owned(), text);
            }
            _ => {}
        }
    }

    fn draw(&mut self) {
        let text = self.render();
        self.drawn = Some(Instant::now());
        // Whoever closed stdout does not want to see it.
        if let Some(term) = &self.term {
            term.clear_last_lines(self.lines_drawn).and_then(|()| term.write_str(&text)).ok();
            self.lines_drawn = rows(&text, term.size().1.into());
        } else {
            io::stdout().lock().write_all(text.as_bytes()).ok();
        }
    }

    fn render(&self) -> String {
        let mut text = String::new();
        if self.term.is_some() || self.drawn.is_none() {
            text += &self.banner;
        }
        let statuses: Vec<String> = self.statuses.iter().map(|(who, what)| format!("{who}: {what}")).collect();
        let seconds = self.started.elapsed().as_secs_f64();
        // Writing to a String cannot fail.
        writeln!(text, "\n{seconds:5.1} s   {}", statuses.join("   ")).ok();
        let mut grid = Grid::new();
        grid.load_preset(presets::UTF8_FULL_CONDENSED);
        if let Some(term) = &self.term {
            grid.set_content_arrangement(ContentArrangement::Dynamic).set_width(term.size().1);
        }
        grid.set_header(["camera", "query", "found", "boxes x1,y1,x2,y2 (score)", "method", "pixels are", "frames/s"]);
        for (camera, (count, message)) in &self.cameras {
            let rate = *count as f64 / seconds.max(0.1);
            let age = format!("{:.0} ms old", message["time"]["age_ms"].as_f64().unwrap_or_default());
            for query in message["queries"].as_array().into_iter().flatten() {
                let matches = query["matches"].as_array().map(Vec::as_slice).unwrap_or_default();
                grid.add_row([
                    camera.clone(),
                    query["text"].as_str().unwrap_or_default().to_owned(),
                    found(query, matches),
                    boxes(matches),
                    matches.first().and_then(|m| m["via"]["method"].as_str()).unwrap_or("").to_owned(),
                    age.clone(),
                    format!("{rate:.1}"),
                ]);
            }
        }
        writeln!(text, "{grid}").ok();
        text
    }
}

/// Rows that a text takes on a terminal of `width` columns, which goes on in the next row where a line is longer.
fn rows(text: &str, width: usize) -> usize {
    text.lines().map(|line| measure_text_width(line).div_ceil(width.max(1)).max(1)).sum()
}

fn found(query: &Value, matches: &[Value]) -> String {
    match query["status"].as_str() {
        Some("ok") if matches.is_empty() => "nothing there".to_owned(),
        Some("ok") => matches.len().to_string(),
        _ => query["reason"].as_str().unwrap_or("not answered").to_owned(),
    }
}

fn boxes(matches: &[Value]) -> String {
    let mut text = String::new();
    for m in matches.iter().take(BOXES) {
        let corner = |i: usize| m["box"][i].as_f64().unwrap_or_default();
        let score = m["score"].as_f64().unwrap_or_default();
        write!(text, "{:.0},{:.0},{:.0},{:.0} ({score:.2})  ", corner(0), corner(1), corner(2), corner(3)).ok();
    }
    if matches.len() > BOXES {
        write!(text, "+{}", matches.len() - BOXES).ok();
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_longer_than_the_terminal_takes_more_rows() {
        assert_eq!(rows("", 80), 0);
        assert_eq!(rows("a\n\nb\n", 80), 3);
        assert_eq!(rows(&format!("{}\n{}\n", "─".repeat(80), "x".repeat(81)), 80), 3);
        assert_eq!(rows("abc", 0), 3);
    }
}
