//! Answers drawn on their images, the best and the worst, so that figures can be believed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use image::{RgbImage, imageops::FilterType};

use super::ink::{self, Color, Ink, LINE};
use crate::{
    cli::watch::slug,
    eval::{
        Entry, Phrase, Scored,
        matching::{assign, best, overlaps},
        phrase::{Case, Verdict},
    },
    types::Method,
};

/// Pictures of each method.
const GOOD: usize = 6;
const BAD: usize = 12;

/// An answer at least so right (F1) may be shown as good, any other as bad.
const PASSABLE: f64 = 0.75;

/// Bytes of an image's name that go into its drawing's: file systems take 255 for a whole name.
const STEM: usize = 60;

/// Long side of a drawn image, so that small ones can be read and large ones are not huge.
const LONG: (u32, u32) = (960, 1280);

const FOUND: Color = [60, 200, 60];
const MISSED: Color = [255, 150, 0];
const RIGHT: Color = [60, 150, 255];
const WRONG: Color = [255, 50, 50];
const CROWD: Color = [160, 160, 160];
const PAPER: Color = [24, 24, 24];
const LEGEND: [(&str, Color); 5] = [
    ("there, found", FOUND),
    ("there, missed", MISSED),
    ("answer, right", RIGHT),
    ("answer, wrong", WRONG),
    ("crowd", CROWD),
];

/// An answered phrase that may be drawn.
pub(super) struct Shown {
    /// Which of the data set's entries, and which of its phrases.
    pub(super) entry: usize,
    pub(super) phrase: usize,
    pub(super) verdict: Verdict,
    pub(super) answer: Vec<Scored>,
}

/// Draws the best and the worst answers of a method into `folder`. Returns how many pictures there are.
pub(super) fn draw(entries: &[Entry], method: Method, shown: &[Shown], folder: &Path) -> Result<usize, String> {
    let mut drawn = 0;
    for (name, chosen) in [("good", good(entries, shown)), ("bad", bad(entries, shown))] {
        for (i, one) in chosen.iter().enumerate() {
            let entry = &entries[one.entry];
            let phrase = &entry.phrases[one.phrase];
            let stem = entry.picture.path.file_stem().unwrap_or_default().to_string_lossy();
            let stem = &stem[..stem.floor_char_boundary(STEM)];
            let path = folder.join(format!("{method}-{name}-{:02}-{}-{stem}.jpg", i + 1, slug(&phrase.text)));
            let pixels = entry.picture.read().map_err(|e| e.to_string())?;
            let size = entry.picture.size;
            let image = RgbImage::from_raw(size.width, size.height, pixels.data.to_vec())
                .ok_or_else(|| format!("{}: has changed", entry.picture.path.display()))?;
            picture(&image, method, phrase, one).save(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            drawn += 1;
        }
    }
    Ok(drawn)
}

/// The most right, and of those the ones with the most things.
fn good<'a>(entries: &[Entry], shown: &'a [Shown]) -> Vec<&'a Shown> {
    let mut all: Vec<&Shown> = shown.iter().filter(|s| s.verdict.hits > 0 && s.verdict.merit() >= PASSABLE).collect();
    all.sort_by(|a, b| b.verdict.merit().total_cmp(&a.verdict.merit()).then(b.verdict.hits.cmp(&a.verdict.hits)));
    varied(entries, all, GOOD)
}

/// The least right, and of those the ones with the most mistakes.
fn bad<'a>(entries: &[Entry], shown: &'a [Shown]) -> Vec<&'a Shown> {
    let wrong = |s: &&Shown| s.verdict.merit() < PASSABLE && s.verdict.case != Case::Crowd;
    let mut all: Vec<&Shown> = shown.iter().filter(wrong).collect();
    all.sort_by(|a, b| {
        let mistakes = |s: &Shown| s.verdict.wrong + s.verdict.missed;
        a.verdict.merit().total_cmp(&b.verdict.merit()).then(mistakes(b).cmp(&mistakes(a)))
    });
    varied(entries, all, BAD)
}

/// The first `count` of `ranked`, no image twice, and no kind more often than its share.
fn varied<'a>(entries: &[Entry], ranked: Vec<&'a Shown>, count: usize) -> Vec<&'a Shown> {
    let kind = |s: &Shown| Arc::clone(&entries[s.entry].phrases[s.phrase].kind);
    let kinds = ranked.iter().map(|s| kind(s)).collect::<BTreeSet<_>>().len();
    let share = count.div_ceil(kinds.max(1));
    let (mut images, mut taken) = (BTreeSet::new(), BTreeMap::<Arc<str>, usize>::new());
    let mut chosen = Vec::new();
    for one in ranked {
        let of_kind = taken.entry(kind(one)).or_default();
        if chosen.len() < count && *of_kind < share && images.insert(one.entry) {
            *of_kind += 1;
            chosen.push(one);
        }
    }
    chosen
}

/// The image with its boxes, under two lines that say what they are.
fn picture(image: &RgbImage, method: Method, phrase: &Phrase, shown: &Shown) -> Ink {
    let long = image.width().max(image.height());
    let scale = f64::from(long.clamp(LONG.0, LONG.1)) / f64::from(long);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 1280 pixels")]
    let scaled = |v: u32| (f64::from(v) * scale).round().max(1.0) as u32;
    let image = image::imageops::resize(image, scaled(image.width()), scaled(image.height()), FilterType::Triangle);
    let legend: u32 = LEGEND.iter().map(|(text, _)| ink::width(text) + 2 * ink::LETTER).sum();
    let strip = 2 * LINE + 8;
    let mut ink = Ink::blank(image.width().max(legend + 8), image.height() + strip, PAPER);
    ink.place(&image, 0, strip);
    ink.text(&caption(method, phrase, &shown.verdict), (8, 4), [255; 3]);
    let mut x = 8;
    for (text, color) in LEGEND {
        ink.text(text, (x, 4 + LINE.cast_signed()), color);
        x += (ink::width(text) + 2 * ink::LETTER).cast_signed();
    }
    boxes(&mut ink, phrase, &shown.answer, scale, f64::from(strip));
    ink
}

fn caption(method: Method, phrase: &Phrase, verdict: &Verdict) -> String {
    let Phrase { text, kind, .. } = phrase;
    let things = verdict.hits + verdict.missed;
    let found = match verdict.case {
        Case::Nothing | Case::Crowd => format!("nothing there, {} answered", verdict.wrong),
        Case::One => format!("IoU {:.2}, {} wrong", verdict.iou, verdict.wrong),
        Case::Several => format!("{} of {things} found, {} wrong", verdict.hits, verdict.wrong),
    };
    let kind = if **kind == **text { String::new() } else { format!(" ({kind})") };
    format!("{method}: \"{text}\"{kind}: {found}")
}

fn boxes(ink: &mut Ink, phrase: &Phrase, answer: &[Scored], scale: f64, top: f64) {
    let place = |corners: [f64; 4]| {
        let [x1, y1, x2, y2] = corners.map(|v| v * scale);
        [x1, y1 + top, x2, y2 + top]
    };
    let found = best(answer, usize::MAX);
    let crowd: Vec<bool> = phrase.truths.iter().map(|t| t.crowd).collect();
    let assigned = assign(&overlaps(&found, &phrase.truths), &phrase.truths, &crowd, 0.5);
    for (i, truth) in phrase.truths.iter().enumerate() {
        let color = match (truth.crowd, assigned.contains(&Some(i))) {
            (true, _) => CROWD,
            (false, true) => FOUND,
            (false, false) => MISSED,
        };
        ink.frame(place(truth.rect.corners()), 4, color);
    }
    for (found, assigned) in found.iter().zip(assigned) {
        let color = match assigned {
            Some(i) if crowd[i] => CROWD,
            Some(_) => RIGHT,
            None => WRONG,
        };
        let corners = place(found.rect.corners());
        ink.frame(corners, 2, color);
        let label = format!("{:.2}", found.score);
        #[expect(clippy::cast_possible_truncation, reason = "pixels of a picture")]
        let at = ((corners[0] as i32).max(0), (corners[3] as i32 - LINE.cast_signed()).max(top as i32));
        ink.fill(at, (ink::width(&label).cast_signed(), LINE.cast_signed()), color);
        ink.text(&label, at, PAPER);
    }
}
