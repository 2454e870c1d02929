//! The table for people and the file for programs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use comfy_table::{Table, presets};
use serde_json::json;

use super::{
    args,
    bare::Bare,
    neighbour::Habit,
    plot,
    system::{Case, Numbers, Spread},
};
use crate::{
    cli::{
        Exit, Failure,
        outputs::{all_written, cannot_write},
        say,
    },
    types::Size,
};

/// Everything that was measured.
pub(super) struct Report {
    pub(super) seconds: f64,
    pub(super) queries: Vec<String>,
    /// The file that the engine ran.
    pub(super) file: PathBuf,
    /// Size of the canvas it was published for, and of what groundd showed it.
    pub(super) canvases: [Size; 2],
    /// What engine and decoder cost alone, in the mean of the run; each case has what was measured around it.
    pub(super) bare: Bare,
    pub(super) cases: Vec<Case>,
    /// One camera beside another with some habit.
    pub(super) beside: Vec<(Habit, Case)>,
}

impl Report {
    /// Writes the files that were asked for and prints the table. Fails if groundd itself gave no numbers.
    pub(super) fn tell(&self, args: &args::Bench) -> Result<(), Failure> {
        // The files first: a reader of the table may leave before its end. What could not be written takes no table along.
        let written = self.write(args);
        let told = say(&self.text());
        written.and(told)?;
        let own = self.cases.iter().find(|case| case.numbers.is_none() && case.system == "groundd");
        match own.and_then(|case| case.note.as_ref()) {
            Some(note) => Err(Failure::new(Exit::Unavailable, format!("groundd could not be measured: {note}"))),
            None => Ok(()),
        }
    }

    /// Writes what can be written; the error names everything that cannot.
    fn write(&self, args: &args::Bench) -> Result<(), Failure> {
        let mut failed = Vec::new();
        let mut write = |path: &Path, text: Result<String, String>| {
            let written = text.and_then(|text| fs::write(path, text).map_err(|e| e.to_string()));
            failed.extend(written.err().map(|reason| cannot_write(path, &reason)));
        };
        if let Some(path) = &args.json {
            let text = serde_json::to_string_pretty(&self.json());
            write(path, text.map(|text| text + "\n").map_err(|e| e.to_string()));
        }
        if let Some(path) = &args.plot {
            write(path, plot::draw(&self.cases));
        }
        all_written(&failed)
    }

    fn text(&self) -> String {
        let Bare { engine_ms, engine_wall_ms, engine_shown_ms, engine_busy_ms, decode_ms, scale_ms, .. } = &self.bare;
        let [whole, shown] = self.canvases.map(|size| format!("{}x{}", size.width, size.height));
        let (cores, seconds, queries) = (cores(), self.seconds, self.queries.join(", "));
        let (processor, file) = (processor(), self.file.display());
        let mut text = format!(
            "{processor}, {cores} cores; {seconds} s a case; groundd answers: {queries}\n\
             alone, a picture: engine {engine_ms:.1} CPU ms ({engine_wall_ms:.1} ms) on {whole}; as groundd shows it pictures, on \
             {shown}, {engine_shown_ms:.1} CPU ms, and {engine_busy_ms:.1} with as many at once as groundd runs; decoder \
             {decode_ms:.1} CPU ms, scaling and colour {scale_ms:.1} CPU ms ({file})\n"
        );
        text += &format!("{}\n", self.table());
        if let Some(stages) = self.stages() {
            text += &format!("where groundd's time goes, ms p50 / p95 / p99:\n{stages}\n");
        }
        if !self.beside.is_empty() {
            text += &format!("a camera beside one that …:\n{}\n", self.isolation());
        }
        text
    }

    /// What a camera's frames come to beside each kind of neighbour.
    fn isolation(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        table.set_header([
            "neighbour",
            "sent/s",
            "analysed/s",
            "delay p50",
            "p95",
            "p99 ms",
            "p95, beside a steady one 1",
            "note",
        ]);
        let p95 = |case: &Case| case.numbers.as_ref()?.latency_ms.map(|spread| spread.p95);
        let steady = self.beside.iter().find(|(habit, _)| *habit == Habit::Steady).and_then(|(_, case)| p95(case));
        for (habit, case) in &self.beside {
            let mut row = vec![habit.name().to_owned()];
            match &case.numbers {
                Some(numbers) => {
                    row.extend([numbers.offered_per_s, numbers.analysed_per_s].map(|rate| format!("{rate:.1}")));
                    row.extend(delays(numbers));
                    let ratio = p95(case).zip(steady).map(|(own, steady)| own / steady);
                    row.push(ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")));
                }
                None => row.extend(vec!["–".to_owned(); 6]),
            }
            row.push(case.note.clone().unwrap_or_default());
            table.add_row(row);
        }
        table
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        table.set_header([
            "cameras",
            "system",
            "sent/s",
            "analysed/s",
            "shed",
            "of possible",
            "CPU ms/frame",
            "over bare",
            "same canvas",
            "delay p50",
            "p95",
            "p99 ms",
            "RSS MB",
            "note",
        ]);
        for case in &self.cases {
            let mut row = vec![case.streams.to_string(), case.system.clone()];
            match &case.numbers {
                Some(numbers) => row.extend(cells(numbers)),
                None => row.extend(vec!["–".to_owned(); 11]),
            }
            row.push(case.note.clone().unwrap_or_default());
            table.add_row(row);
        }
        table
    }

    fn stages(&self) -> Option<Table> {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        let names = ["arrive", "decode", "queue", "infer", "publish"];
        table.set_header(["cameras", "system"].into_iter().chain(names));
        let with_stages = self.cases.iter().filter_map(|case| Some((case, case.numbers.as_ref()?)));
        for (case, numbers) in with_stages.filter(|(_, numbers)| !numbers.stages_ms.is_empty()) {
            let stage = |name: &&str| numbers.stages_ms.get(*name).map_or_else(String::new, slashed);
            let row = [case.streams.to_string(), case.system.clone()];
            table.add_row(row.into_iter().chain(names.iter().map(stage)));
        }
        (table.row_count() > 0).then_some(table)
    }

    fn json(&self) -> serde_json::Value {
        let [canvas, shown] = self.canvases.map(|size| [size.width, size.height]);
        json!({
            "v": 1,
            "version": env!("CARGO_PKG_VERSION"),
            "machine": { "cores": cores(), "processor": processor() },
            "seconds": self.seconds,
            "queries": self.queries,
            "file": self.file,
            "canvas": canvas,
            "canvas_shown": shown,
            "bare": self.bare,
            "cases": self.cases,
            "beside": self.beside.iter().map(|(habit, case)| beside(*habit, case)).collect::<Vec<_>>(),
        })
    }
}

/// What a camera's frames came to beside another. What they cost cannot be told: the process serves both.
fn beside(habit: Habit, case: &Case) -> serde_json::Value {
    let numbers = case.numbers.as_ref().map(|numbers| {
        json!({
            "offered_per_s": numbers.offered_per_s,
            "analysed_per_s": numbers.analysed_per_s,
            "unanswered": numbers.unanswered,
            "latency_ms": numbers.latency_ms,
            "stages_ms": numbers.stages_ms,
        })
    });
    json!({ "neighbour": habit, "note": case.note, "camera": numbers })
}

fn cells(numbers: &Numbers) -> Vec<String> {
    let mut cells = vec![
        format!("{:.1}", numbers.offered_per_s),
        format!("{:.1}", numbers.analysed_per_s),
        format!("{:.0} %", numbers.unanswered * 100.0),
        format!("{:.0} %", numbers.of_possible * 100.0),
        format!("{:.1}", numbers.cpu_ms_per_frame),
        format!("{:.2}", numbers.over_bare),
        numbers.over_bare_shown.map_or_else(|| "–".to_owned(), |over| format!("{over:.2}")),
    ];
    cells.extend(delays(numbers));
    cells.push(format!("{:.0}", numbers.rss_mb));
    cells
}

/// p50, p95 and p99.
fn delays(numbers: &Numbers) -> [String; 3] {
    let Some(Spread { p50, p95, p99, .. }) = numbers.latency_ms else { return [(); 3].map(|()| "–".to_owned()) };
    [p50, p95, p99].map(|ms| format!("{ms:.0}"))
}

fn slashed(spread: &Spread) -> String {
    format!("{:.1} / {:.1} / {:.1}", spread.p50, spread.p95, spread.p99)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The processor's name, where the kernel tells it.
fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    name.unwrap_or("unknown processor").to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const BARE: Bare = Bare {
        engine_ms: 10.0,
        engine_wall_ms: 10.0,
        on_device: false,
        engine_shown_ms: 7.5,
        engine_busy_ms: 20.0,
        decode_ms: 1.0,
        scale_ms: 1.0,
    };

    fn case(system: &str) -> Case {
        let spread = Spread { p50: 1.0, p95: 2.0, p99: 3.0, count: 4 };
        let numbers = Numbers {
            offered_per_s: 15.0,
            analysed_per_s: 15.0,
            unanswered: 0.0,
            cpu_ms_per_frame: 10.0,
            over_bare: 1.2,
            over_bare_shown: Some(1.5),
            of_possible: 1.0,
            latency_ms: Some(spread),
            stages_ms: BTreeMap::from([("infer", spread)]),
            rss_mb: 100.0,
            world_cpu: 0.0,
            bare: BARE,
        };
        Case { system: system.to_owned(), streams: 4, is_own: true, note: None, numbers: Some(numbers) }
    }

    #[test]
    fn stages_say_whose_they_are_and_the_engine_is_told_idle_and_busy() {
        let cases = vec![case("groundd"), case("groundd, asking always")];
        let report = Report {
            seconds: 1.0,
            queries: Vec::new(),
            file: "vision.onnx".into(),
            canvases: [Size::new(416, 416), Size::new(416, 256)],
            bare: BARE,
            cases,
            beside: Vec::new(),
        };
        let stages = report.stages().unwrap().to_string();
        for words in ["system", "groundd, asking always", "1.0 / 2.0 / 3.0"] {
            assert!(stages.contains(words), "{words:?} is not in\n{stages}");
        }
        let words = "10.0 CPU ms (10.0 ms) on 416x416; as groundd shows it pictures, on 416x256, 7.5 CPU ms, and 20.0 with as \
                     many at once as groundd runs";
        assert!(report.text().contains(words), "{}", report.text());
        assert_eq!(report.json()["bare"]["engine_busy_ms"], 20.0);
    }
}
