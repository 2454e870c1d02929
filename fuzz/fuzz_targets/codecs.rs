//! Any text, cut anywhere: no codec panics, boxes are sound, and the cut makes no difference.
//!
//! The first byte picks the codec, the second how the text is cut, the rest is the text.

#![no_main]

use std::sync::Arc;

use groundd::{
    ground::codec::{
        Codec, RawBox,
        florence::Florence,
        guard::{Caps, Guard},
        nano::{Answers, BINS, Form, Reader},
        ofa::{Ofa, Scale},
        paligemma::PaliGemma,
        pix2seq::Pix2Seq,
        qwen_box::{Dialect, QwenBox},
        qwen_json::{QwenJson, Unit},
        regions::{self, Regions},
    },
    types::Size,
};
use libfuzzer_sys::fuzz_target;

fn codec(pick: u8) -> Box<dyn Codec> {
    match pick % 9 {
        0 => Box::new(QwenBox::new(Dialect::QwenVl)),
        1 => Box::new(QwenBox::new(Dialect::Qwen2Vl)),
        2 => Box::new(QwenJson::new(Unit::Pixels(Size::new(1120, 784)))),
        3 => Box::new(QwenJson::new(Unit::Thousandths)),
        4 => Box::new(Ofa::new(Scale::default())),
        5 => Box::new(Florence::default()),
        6 => Box::new(PaliGemma::default()),
        7 => Box::new(Regions::new(regions::Dialect::Fo1, offered())),
        _ => Box::new(Regions::new(regions::Dialect::VlxSeek, offered())),
    }
}

/// Regions to choose among.
fn offered() -> Vec<[f32; 4]> {
    (0..40u8).map(|i| [f32::from(i) / 80.0, 0.25, f32::from(i) / 80.0 + 0.5, 0.5]).collect()
}

fn sound(b: &RawBox) {
    let [x1, y1, x2, y2] = b.fractions;
    assert!(0.0 <= x1 && x1 < x2 && x2 <= 1.0 && 0.0 <= y1 && y1 < y2 && y2 <= 1.0, "{b:?}");
    assert!(b.score.is_some_and(|s| (s - 0.5).abs() < 1e-5), "{b:?}");
}

/// Whatever the tokens, boxes are sound and were written; and what the grammar allows is what it takes.
fn answer(form: Form, tokens: &[u8]) {
    let names = ["<pad>", "<coords>", "<bins>", "<box>", "<end>"].map(str::to_owned).into_iter();
    let names = names.chain((0..10).map(|d| d.to_string())).chain((0..BINS).map(|b| format!("<bin_{b}>")));
    let answers = Answers::new(&names.zip(0..).collect()).expect("the list is whole");
    let mut reader = Reader::new(&Arc::new(answers), form, 10);
    for pair in tokens.chunks_exact(2) {
        let token = usize::from(u16::from_le_bytes([pair[0], pair[1]])) % 300;
        let legal = reader.legal();
        let found = reader.push(token, 0.5);
        assert!(legal.contains(&token) || (found.is_none() && reader.is_over()));
        found.iter().for_each(sound);
    }
}

fuzz_target!(|data: &[u8]| {
    let [pick, cut, text @ ..] = data else { return };
    answer(if pick % 2 == 0 { Form::Coords } else { Form::Bins }, text);
    let text = String::from_utf8_lossy(text);
    let mut whole = codec(*pick);
    let mut expected = whole.push(&text, Some(0.5));
    expected.extend(whole.finish());

    let mut pieces = codec(*pick);
    let mut got = Vec::new();
    let mut rest = &*text;
    while !rest.is_empty() {
        let at = rest.char_indices().nth(usize::from(*cut % 7) + 1).map_or(rest.len(), |(at, _)| at);
        got.extend(pieces.push(&rest[..at], Some(0.5)));
        rest = &rest[at..];
    }
    got.extend(pieces.finish());

    let mut guard = Guard::new(Caps { tokens: 4096, boxes: 100 });
    assert_eq!(expected.len(), got.len());
    for (a, b) in expected.iter().zip(&got) {
        assert_eq!((&a.label, a.fractions), (&b.label, b.fractions));
        sound(a);
        sound(b);
        guard.found(a);
    }

    let mut ids = Pix2Seq::default();
    for pair in data.chunks_exact(2) {
        let id = u16::from_le_bytes([pair[0], pair[1]]).into();
        guard.token(id);
        if ids.push_coordinate(id) {
            ids.push_class(id.wrapping_sub(100), 0.5);
        }
    }
});
