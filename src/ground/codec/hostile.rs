//! Properties of all text codecs at once: any split, any text.

use proptest::prelude::*;

use super::{
    Codec, RawBox,
    florence::{self, Florence},
    ofa::{self, Ofa},
    paligemma::{self, PaliGemma},
    qwen_box::{self, Dialect, QwenBox},
    qwen_json::{self, QwenJson, Unit},
    regions::{self, Regions},
};
use crate::types::Size;

const PIXELS: Unit = Unit::Pixels(Size { width: 1120, height: 784 });

/// Every text codec, fresh.
fn all() -> Vec<Box<dyn Codec>> {
    vec![
        Box::new(QwenBox::new(Dialect::QwenVl)),
        Box::new(QwenBox::new(Dialect::Qwen2Vl)),
        Box::new(QwenJson::new(PIXELS)),
        Box::new(QwenJson::new(Unit::Thousandths)),
        Box::new(Ofa::new(ofa::Scale::default())),
        Box::new(Florence::default()),
        Box::new(PaliGemma::default()),
        Box::new(Regions::new(regions::Dialect::Fo1, offered())),
        Box::new(Regions::new(regions::Dialect::VlxSeek, offered())),
    ]
}

/// Regions for codecs that choose among some.
fn offered() -> Vec<[f32; 4]> {
    (0..40u8).map(|i| [f32::from(i) / 80.0, 0.25, f32::from(i) / 80.0 + 0.5, 0.5]).collect()
}

fn whole(codec: &mut dyn Codec, text: &str, prob: Option<f32>) -> Vec<RawBox> {
    let mut out = codec.push(text, prob);
    out.extend(codec.finish());
    out
}

fn split(codec: &mut dyn Codec, text: &str, cuts: &[prop::sample::Index], prob: Option<f32>) -> Vec<RawBox> {
    let chars: Vec<char> = text.chars().collect();
    let mut at: Vec<usize> = cuts.iter().map(|i| i.index(chars.len() + 1)).collect();
    at.extend([0, chars.len()]);
    at.sort_unstable();
    let pieces = at.windows(2).map(|w| chars[w[0]..w[1]].iter().collect::<String>());
    let mut out: Vec<_> = pieces.flat_map(|piece| codec.push(&piece, prob)).collect();
    out.extend(codec.finish());
    out
}

/// Fragments of every family's syntax, whole and broken, and noise.
fn texts() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        3 => prop::sample::select(vec![
            "<ref>", "</ref>", "<box>", "</box>", "(1,2),(300,400)", "(", ")", ",", "<|object_ref_start|>",
            "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "{", "}", "[", "]", "\"", "'", ":", "\\",
            "\"bbox_2d\"", "'bbox_2d'", "\"label\"", "[1, 2, 300, 400]", "\"cat\"", "<think>", "</think>", "```json\n",
            "{\"bbox_2d\": [5, 6, 70, 80], \"label\": \"Dog\"}", "<loc_", ">", "<", "<poly>", "</poly>", "<sep>", "</s>",
            "<ground>", "</ground>", "<objects>", "</objects>", "<ground>dog</ground><objects>", "None",
            "<pad>", ";", " cat ", "\n", "<seg012>", "<bin_7>", "<bin_900>", "-1", "1e999", "nan", "é", "🦀",
        ]).prop_map(str::to_owned),
        2 => (0u32..1100).prop_map(|n| format!("<loc_{n}>")),
        2 => (0u32..1100).prop_map(|n| format!("<loc{n:04}>")),
        1 => (0u32..1100).prop_map(|n| format!("<bin_{n}>")),
        1 => (0u32..120).prop_map(|n| format!("<region{n}>")),
        1 => (0u32..120).prop_map(|n| format!("<obj{n}>")),
        1 => "\\PC{0,6}",
    ];
    prop::collection::vec(fragment, 0..40).prop_map(|v| v.concat())
}

/// Boxes far enough from the edges to survive every family's bins.
fn boxes() -> impl Strategy<Value = Vec<[f32; 4]>> {
    let one = (0.0f32..0.7, 0.0f32..0.7, 0.02f32..0.25, 0.02f32..0.25);
    prop::collection::vec(one.prop_map(|(x, y, w, h)| [x, y, x + w, y + h]), 0..6)
}

/// Nobody has to wait for the end of an answer, nor for the next box.
#[test]
fn a_box_is_out_as_soon_as_its_text_is_complete() {
    type Text = Box<dyn Fn([f32; 4]) -> String>;
    let mut written: Vec<(Box<dyn Codec>, Text)> = vec![
        (Box::new(Ofa::new(ofa::Scale::default())), Box::new(|one| ofa::encode(ofa::Scale::default(), one))),
        (Box::new(PaliGemma::default()), Box::new(|one| paligemma::encode(&[("thing", one)]) + ";")),
    ];
    for dialect in [Dialect::QwenVl, Dialect::Qwen2Vl] {
        let text = move |one| qwen_box::encode(dialect, "thing", one);
        written.push((Box::new(QwenBox::new(dialect)), Box::new(text)));
    }
    for unit in [PIXELS, Unit::Thousandths] {
        let object = move |one| {
            let whole = qwen_json::encode(unit, &[("thing", one)]);
            whole[whole.find('{').unwrap()..=whole.rfind('}').unwrap()].to_owned()
        };
        written.push((Box::new(QwenJson::new(unit)), Box::new(object)));
    }
    written.push((Box::new(Florence::default()), Box::new(|one| florence::encode("thing", &[one]))));
    for (mut codec, text) in written {
        for one in [[0.1, 0.2, 0.3, 0.4], [0.5, 0.2, 0.7, 0.4]] {
            let text = text(one);
            let (most, last) = text.split_at(text.len() - 1);
            assert_eq!(codec.push(most, None), [], "{text}");
            assert_eq!(codec.push(last, None).len(), 1, "{text}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_split_gives_the_same_boxes(
        text in texts(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        // With one probability for every piece the geometric mean is that one, however the text is cut.
        for prob in [None, Some(0.25)] {
            for (mut a, mut b) in all().into_iter().zip(all()) {
                let (a, b) = (whole(a.as_mut(), &text, prob), split(b.as_mut(), &text, &cuts, prob));
                prop_assert_eq!(a.len(), b.len());
                for (a, b) in a.iter().zip(&b) {
                    prop_assert_eq!((&a.label, a.fractions), (&b.label, b.fractions));
                    let both = a.score.zip(b.score);
                    prop_assert_eq!(both.is_some(), prob.is_some());
                    prop_assert!(both.is_none_or(|(a, b)| (a - b).abs() < 1e-6 && (a - 0.25).abs() < 1e-6));
                }
            }
        }
    }

    #[test]
    fn any_text_gives_sound_boxes_and_no_more_than_it_has_room_for(text in texts()) {
        let room = text.matches('>').count() / 4 + text.matches('>').count() / 2 + text.matches('}').count();
        let tags = text.matches("<region").count() + text.matches("<obj").count();
        for mut codec in all() {
            let got = whole(codec.as_mut(), &text, Some(0.5));
            let room = room + tags;
            prop_assert!(got.len() <= room);
            for b in got {
                let [x1, y1, x2, y2] = b.fractions;
                prop_assert!(0.0 <= x1 && x1 < x2 && x2 <= 1.0 && 0.0 <= y1 && y1 < y2 && y2 <= 1.0, "{b:?}");
                prop_assert!(b.score.is_none_or(|s| (0.0..=1.0).contains(&s)));
            }
        }
    }

    #[test]
    fn text_without_markers_has_no_boxes(text in "[^<{]{0,200}") {
        for mut codec in all() {
            prop_assert_eq!(whole(codec.as_mut(), &text, None), vec![]);
        }
    }

    /// Real boxes in the middle of chatter come out, all of them, in order, and nothing else does.
    #[test]
    fn chatter_neither_hides_nor_adds_boxes(boxes in boxes(), chatter in prop::collection::vec("[a-zA-Z0-9 .,'\"()\\[\\]]{0,20}", 7)) {
        let mut boxes = boxes;
        boxes.dedup();
        let around = |one: &dyn Fn(usize, [f32; 4]) -> String| {
            let mut text = chatter[6].clone();
            for (i, b) in boxes.iter().enumerate() {
                text += &one(i, *b);
                text += &chatter[i];
            }
            text
        };
        let check = |codec: &mut dyn Codec, text: &str| {
            let got = whole(codec, text, None);
            prop_assert_eq!(got.len(), boxes.len(), "{}", text);
            for (raw, given) in got.iter().zip(&boxes) {
                prop_assert!(raw.fractions.iter().zip(given).all(|(a, b)| (a - b).abs() < 1.6e-3), "{}", text);
            }
            Ok(())
        };
        for dialect in [Dialect::QwenVl, Dialect::Qwen2Vl] {
            check(&mut QwenBox::new(dialect), &around(&|i, b| qwen_box::encode(dialect, &format!("thing {i}"), b)))?;
        }
        for unit in [PIXELS, Unit::Thousandths] {
            let text = around(&|i, b| qwen_json::encode(unit, &[(&format!("thing {i}"), b)]));
            check(&mut QwenJson::new(unit), &text)?;
        }
        check(&mut Ofa::new(ofa::Scale::default()), &around(&|_, b| ofa::encode(ofa::Scale::default(), b)))?;
        check(&mut Florence::default(), &around(&|_, b| florence::encode("car", &[b])))?;
        check(&mut PaliGemma::default(), &around(&|_, b| paligemma::encode(&[("thing", b)]) + " ; "))?;
    }
}
