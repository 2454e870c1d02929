//! Against the reference parsers: what `tests/data/codec/generate.py` dumped from transformers' Florence-2 and from
//! the pattern of `PaliGemma`'s authors.

use serde::Deserialize;

use super::{
    Codec, RawBox, clamped,
    florence::{self, Florence},
    paligemma::PaliGemma,
};

type Named = (String, u32, u32, u32, u32);

#[derive(Deserialize)]
struct Fixture {
    parsed: Vec<Parsed>,
    quantised: Vec<Quantised>,
}

/// Width, height, corners in pixels, their bins.
#[derive(Deserialize)]
struct Quantised(f32, f32, [f32; 4], [u32; 4]);

#[derive(Deserialize)]
struct Parsed {
    text: String,
    boxes: Vec<Named>,
}

fn read(codec: &mut dyn Codec, text: &str, bins: f32, half: f32) -> Vec<Named> {
    let mut out: Vec<RawBox> = codec.push(text, None);
    out.extend(codec.finish());
    let named = |b: RawBox| {
        let [x1, y1, x2, y2] = b.fractions.map(|f| clamped(f64::from(f * bins - half).round(), u32::MAX));
        (b.label, x1, y1, x2, y2)
    };
    out.into_iter().map(named).collect()
}

#[test]
fn florence_answers_read_as_transformers_reads_them() {
    let fixture: Fixture = serde_json::from_str(include_str!("../../../tests/data/codec/florence.json")).unwrap();
    assert!(fixture.parsed.iter().map(|p| p.boxes.len()).sum::<usize>() > 20);
    for Parsed { text, boxes } in fixture.parsed {
        assert_eq!(read(&mut Florence::default(), &text, 1000.0, 0.5), boxes, "{text}");
    }
}

#[test]
fn florence_bins_are_those_of_transformers() {
    let fixture: Fixture = serde_json::from_str(include_str!("../../../tests/data/codec/florence.json")).unwrap();
    for row in fixture.quantised {
        let Quantised(w, h, corners, bins) = row;
        let [x1, y1, x2, y2] = corners;
        assert_eq!(florence::quantise([x1 / w, y1 / h, x2 / w, y2 / h]), bins, "{corners:?} of {w}x{h}");
    }
}

#[test]
fn the_banned_phrases_are_those_of_transformers() {
    let banned: Vec<String> =
        serde_json::from_str(include_str!("../../../tests/data/codec/florence_banned.json")).unwrap();
    assert_eq!(florence::BANNED, banned);
}

#[test]
fn paligemma_answers_read_as_its_authors_read_them() {
    let cases: Vec<Parsed> = serde_json::from_str(include_str!("../../../tests/data/codec/paligemma.json")).unwrap();
    assert!(cases.iter().map(|p| p.boxes.len()).sum::<usize>() > 30);
    for Parsed { text, boxes } in cases {
        assert_eq!(read(&mut PaliGemma::default(), &text, 1024.0, 0.0), boxes, "{text}");
    }
}
