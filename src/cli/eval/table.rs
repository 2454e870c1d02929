//! What an evaluation found, as tables for people.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use comfy_table::{CellAlignment, Table, presets};

use super::report::{MethodReport, Report};
use crate::{
    eval::{Bill, Figures, Spread},
    types::ScoreKind,
};

/// Kinds that are listed; those with the most things come first.
const KINDS: usize = 20;
/// Reasons for refusals that are listed.
const REASONS: usize = 3;

pub(super) const LEGEND: &str = "\
acc, IoU  the best-scoring box, where one thing is there: share with IoU >= 0.5, mean IoU
F1, F1+   all boxes at IoU 0.5: of all phrases, of those for several things
miss      silence where nothing is there
AP, AP50  as COCO has them, mean over the kinds; recall: things that some box covers, whatever its score
cost      p50 / p95 of one frame with all its phrases asked at once; decoding, scaling and a first frame to warm up left out
";

/// All tables of `report`.
pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    let figures = report.methods.first().map(|m| m.figures.clone()).unwrap_or_default();
    let Figures { phrases, targets, for_one, for_several, for_nothing, .. } = figures;
    let data = &report.data;
    // Writing to a String cannot fail.
    writeln!(
        text,
        "{} on {}: {} images, {phrases} phrases ({for_one} for one thing, {for_several} for several, \
        {for_nothing} for nothing), {targets} things",
        report.model.id, data.name, data.images
    )
    .ok();
    writeln!(text, "{}", overall(report)).ok();
    text += LEGEND;
    if data.unreadable > 0 {
        let n = data.unreadable;
        writeln!(text, "{}: {n} images could not be read and are left out; the log names them", data.name).ok();
    }
    for method in &report.methods {
        text += &notes(method);
    }
    let kinds = kinds(report);
    if kinds.len() > 1 {
        let shown = kinds.len().min(KINDS);
        writeln!(text, "\n{}", by_kind(report, &kinds[..shown])).ok();
        if kinds.len() > shown {
            writeln!(text, "and {} more kinds; --json has them all", kinds.len() - shown).ok();
        }
    }
    text
}

fn grid(header: Vec<String>) -> Table {
    let mut grid = Table::new();
    grid.load_preset(presets::UTF8_FULL_CONDENSED);
    grid.set_header(header);
    grid
}

/// Numbers below one another: all columns but the first `names`.
fn aligned(mut grid: Table, names: usize) -> Table {
    for column in grid.column_iter_mut().skip(names) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    grid
}

fn header(first: &[&str], more: &[&str]) -> Vec<String> {
    let figures = ["acc", "IoU", "F1", "F1+", "miss", "AP", "AP50", "recall"];
    first.iter().chain(&figures).chain(more).map(ToString::to_string).collect()
}

fn cells(f: &Figures) -> Vec<String> {
    let figures = [f.accuracy, f.mean_iou, f.f1, f.f1_several, f.miss, f.precision.ap, f.precision.ap50, f.recall];
    figures.iter().map(|v| v.map_or_else(none, |v| format!("{v:.3}"))).collect()
}

fn none() -> String {
    "–".to_owned()
}

fn overall(report: &Report) -> Table {
    let costs = ["ms/frame", "ms/phrase", "passes/frame", "tokens/phrase"];
    let mut grid = grid(header(&["method"], &costs));
    for m in &report.methods {
        let spread = |bill: Option<Bill>, pick: fn(Bill) -> Spread, digits: usize| {
            bill.map(pick).map_or_else(none, |s| format!("{:.digits$} / {:.digits$}", s.p50, s.p95))
        };
        let cost = [
            spread(m.cost.ms, |b| b.frame, 1),
            spread(m.cost.ms, |b| b.query, 2),
            spread(m.cost.passes, |b| b.frame, 0),
            spread(m.cost.tokens, |b| b.query, 0),
        ];
        let row = [vec![m.method.name().to_owned()], cells(&m.figures), cost.to_vec()];
        grid.add_row(row.concat());
    }
    aligned(grid, 1)
}

/// Kinds with how many things they ask for, most first.
fn kinds(report: &Report) -> Vec<(Arc<str>, usize)> {
    let mut kinds: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
    for (kind, figures) in report.methods.iter().flat_map(|m| &m.kinds) {
        kinds.insert(kind, figures.targets);
    }
    let mut kinds: Vec<(Arc<str>, usize)> = kinds.into_iter().map(|(kind, n)| (Arc::clone(kind), n)).collect();
    kinds.sort_by_key(|(_, things)| std::cmp::Reverse(*things));
    kinds
}

fn by_kind(report: &Report, kinds: &[(Arc<str>, usize)]) -> Table {
    let mut grid = grid(header(&["kind", "method"], &["phrases", "things"]));
    for (kind, _) in kinds {
        for m in &report.methods {
            if let Some(figures) = m.kinds.get(kind) {
                let counts = vec![figures.phrases.to_string(), figures.targets.to_string()];
                let names = vec![kind.to_string(), m.method.name().to_owned()];
                grid.add_row([names, cells(figures), counts].concat());
            }
        }
    }
    aligned(grid, 2)
}

/// What one must know to read a method's row.
fn notes(m: &MethodReport) -> String {
    let mut text = String::new();
    if m.figures.refused > 0 {
        let mut reasons: Vec<_> = m.refused.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let listed: Vec<String> = reasons.iter().take(REASONS).map(|(reason, n)| format!("{reason} ({n})")).collect();
        let more = reasons.len().saturating_sub(REASONS);
        let more = if more > 0 { format!("; and {more} more reasons") } else { String::new() };
        let (method, refused, phrases) = (m.method, m.figures.refused, m.figures.phrases);
        text += &format!("{method}: {refused} of {phrases} phrases could not be asked and count as wrong: ");
        text += &format!("{}{more}\n", listed.join("; "));
    }
    if m.figures.unfinished > 0 {
        let (method, unfinished, phrases) = (m.method, m.figures.unfinished, m.figures.phrases);
        text += &format!(
            "{method}: ran out of passes for {unfinished} of {phrases} phrases before it had found anything; its silence \
             counts as an answer. "
        );
        text += "--zoom-passes gives more, --zoom-exhaustive all\n";
    }
    if m.score_kinds.contains(&ScoreKind::None) && m.figures.precision.ap.is_some() {
        text += &format!("{}: gives no scores, so AP goes by the order in which boxes were written\n", m.method);
    }
    text
}
