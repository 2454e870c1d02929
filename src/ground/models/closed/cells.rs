//! Detectors that tell a box from every cell of some grids: YOLOX, the distance bins of `NanoDet` and `PicoDet`, and
//! `FastestDet`.

use super::{Layout, Wanted};
use crate::{
    ground::{
        engine::{Engine, Outputs, Port, listed},
        manifest::{Activation, Head},
        methods::propose::{Candidate, corners},
        models::{numbers, sigmoid},
    },
    types::Size,
};

/// Refuses what cannot be the strides of a detector's grids.
fn check(strides: &[u32]) -> Result<(), String> {
    if strides.is_empty() || strides.iter().any(|s| !(1..=1024).contains(s)) {
        return Err("head.strides: should be the grids' steps in pixels, 1 to 1024, as in [8, 16, 32]".to_owned());
    }
    Ok(())
}

/// The cells of every grid on an image, one after the other: column, row and stride.
fn cells(strides: &[u32], image: Size) -> impl Iterator<Item = [f32; 3]> {
    strides.iter().flat_map(move |&stride| {
        let Size { width: columns, height: rows } = grid(image, stride);
        (0..rows).flat_map(move |y| (0..columns).map(move |x| [x as f32, y as f32, stride as f32]))
    })
}

/// How many there are.
fn count(strides: &[u32], image: Size) -> usize {
    strides.iter().map(|stride| grid(image, *stride).area()).sum()
}

fn grid(image: Size, stride: u32) -> Size {
    Size::new(image.width.div_ceil(stride), image.height.div_ceil(stride))
}

/// Whether an output may be `[1, rows, width]` or `[rows, width]`.
fn may_be(port: &Port, rows: usize, width: usize) -> bool {
    let shape = [Some(1), Some(rows), Some(width)];
    port.element.is_float() && (port.has_shape(&shape) || port.has_shape(&shape[1..]))
}

/// YOLOX: a row a cell with `cx, cy, w, h, objectness`, then a score a class; a box's score is the product of the two.
///
/// Centre and size are relative to the cell unless the graph has done that already: `(c + cell) · stride`,
/// `e^s · stride` (`yolox/utils/demo_utils.py`, `demo_postprocess`). A cell has one class, the best.
pub(super) struct Yolox {
    output: String,
    strides: Vec<u32>,
    classes: usize,
    decoded: bool,
}

impl Yolox {
    pub(super) fn of(head: &Head, image: Size, classes: usize, engine: &dyn Engine) -> Result<Self, String> {
        check(&head.strides)?;
        let rows = count(&head.strides, image);
        let output = engine.outputs().iter().find(|port| may_be(port, rows, 5 + classes));
        let output = output.ok_or_else(|| {
            let (width, have) = (5 + classes, listed(engine.outputs()));
            format!("head: with these strides and {classes} classes an output should be f32[1,{rows},{width}]; there are {have}")
        })?;
        Ok(Self { output: output.name.clone(), strides: head.strides.clone(), classes, decoded: head.decoded })
    }

    fn corners(&self, row: &[f32], [x, y, stride]: [f32; 3]) -> [f32; 4] {
        let [cx, cy, w, h] = [row[0], row[1], row[2], row[3]];
        if self.decoded {
            return corners([cx, cy, w, h]);
        }
        corners([(cx + x) * stride, (cy + y) * stride, w.exp() * stride, h.exp() * stride])
    }
}

impl Layout for Yolox {
    fn read(
        &self,
        outputs: &mut Outputs,
        image: Size,
        wanted: Wanted<'_>,
        found: &mut Vec<Candidate>,
    ) -> Result<(), String> {
        let (rows, width) = (count(&self.strides, image), 5 + self.classes);
        let data = outputs.take_only_f32(&self.output, &[rows, width])?;
        numbers(&self.output, data.iter().skip(4).step_by(width))?;
        // Class scores are probabilities: none lifts a cell above its objectness, and most cells need no look at all classes.
        let floor = match wanted {
            Wanted::Things(least) => least,
            Wanted::Classes(least) => least.iter().copied().fold(f32::INFINITY, f32::min),
        };
        let likely = data.chunks_exact(width).zip(cells(&self.strides, image)).filter(|(row, _)| row[4] >= floor);
        for (row, cell) in likely {
            let objectness = row[4];
            let (class, score, least) = match wanted {
                Wanted::Things(least) => (0, objectness, least),
                Wanted::Classes(least) => {
                    numbers(&self.output, &row[5..])?;
                    let (class, best) = best(row[5..].iter().copied());
                    (class, objectness * best, least[class])
                }
            };
            if score >= least {
                found.push(Candidate { corners: self.corners(row, cell), class, score });
            }
        }
        Ok(())
    }

    fn step(&self) -> Option<u32> {
        self.strides.iter().max().copied()
    }
}

/// The largest of some scores and its place; of equals the first.
fn best(scores: impl Iterator<Item = f32>) -> (usize, f32) {
    let better = |best: (usize, f32), (at, score): (usize, f32)| if score > best.1 { (at, score) } else { best };
    scores.enumerate().fold((0, f32::NEG_INFINITY), better)
}

/// Generalised focal heads (`NanoDet`, `PicoDet`): a score a class for every cell, and for each side of the box the
/// probabilities that it is 0, 1, 2, … strides away from the cell's centre; the distance is their mean.
///
/// A grid has two tensors of its own, or all are one behind the other, scores before distances.
pub(super) struct Distances {
    source: Source,
    cells: Vec<[f32; 3]>,
    classes: usize,
    bins: usize,
    centre: f32,
    activation: Activation,
}

enum Source {
    /// Rows of the grid, and the names of its scores and distances.
    Grids(Vec<(usize, String, String)>),
    /// One tensor with everything.
    Joined(String),
}

impl Distances {
    pub(super) fn of(head: &Head, image: Size, classes: usize, engine: &dyn Engine) -> Result<Self, String> {
        check(&head.strides)?;
        let cells: Vec<_> = cells(&head.strides, image).collect();
        if head.activation == Activation::Softmax {
            return Err("head.activation: should be none or sigmoid".to_owned());
        }
        let outputs = engine.outputs();
        let wrong = || {
            let have = listed(outputs);
            format!(
                "head: with these strides and {classes} classes there should be f32[1,cells,{classes}] and \
                 f32[1,cells,4·bins] for each grid, or one f32[1,{},{classes}+4·bins]; there are {have}",
                cells.len()
            )
        };
        let last = |port: &Port| port.shape.last().copied().flatten();
        let (source, bins) = if let [only] = outputs {
            let distances = last(only).and_then(|width| width.checked_sub(classes)).ok_or_else(wrong)?;
            if !may_be(only, cells.len(), classes + distances) {
                return Err(wrong());
            }
            (Source::Joined(only.name.clone()), distances)
        } else {
            let distances = outputs.iter().filter_map(last).find(|width| *width != classes).ok_or_else(wrong)?;
            let mut grids = Vec::new();
            for &stride in &head.strides {
                let rows = grid(image, stride).area();
                let named = |width: usize| outputs.iter().find(|port| may_be(port, rows, width));
                let (scores, places) = (named(classes).ok_or_else(wrong)?, named(distances).ok_or_else(wrong)?);
                grids.push((rows, scores.name.clone(), places.name.clone()));
            }
            (Source::Grids(grids), distances)
        };
        if bins < 8 || bins % 4 != 0 {
            return Err(wrong());
        }
        let (centre, activation) = (head.centre, head.activation);
        Ok(Self { source, cells, classes, bins: bins / 4, centre, activation })
    }

    fn corners(&self, distances: &[f32], [x, y, stride]: [f32; 3]) -> [f32; 4] {
        let mut sides = distances.chunks_exact(self.bins).map(|bins| mean(bins) * stride);
        let mut side = || sides.next().unwrap_or_default();
        let (cx, cy) = ((x + self.centre) * stride, (y + self.centre) * stride);
        let (left, top, right, bottom) = (side(), side(), side(), side());
        [cx - left, cy - top, cx + right, cy + bottom]
    }

    fn cell(&self, scores: &[f32], distances: &[f32], cell: [f32; 3], wanted: Wanted<'_>, found: &mut Vec<Candidate>) {
        let value = |score: f32| if self.activation == Activation::Sigmoid { sigmoid(score) } else { score };
        match wanted {
            Wanted::Things(least) => {
                let score = value(best(scores.iter().copied()).1);
                if score >= least {
                    found.push(Candidate { corners: self.corners(distances, cell), class: 0, score });
                }
            }
            Wanted::Classes(least) => {
                let mut corners = None;
                for (class, (score, least)) in scores.iter().zip(least).enumerate() {
                    let score = value(*score);
                    if score >= *least {
                        let corners = *corners.get_or_insert_with(|| self.corners(distances, cell));
                        found.push(Candidate { corners, class, score });
                    }
                }
            }
        }
    }
}

/// The mean place under a softmax of some logits.
fn mean(logits: &[f32]) -> f32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut weighted) = (0.0, 0.0);
    for (place, logit) in (0u16..).zip(logits) {
        let share = (logit - most).exp();
        sum += share;
        weighted += share * f32::from(place);
    }
    weighted / sum
}

impl Layout for Distances {
    fn read(
        &self,
        outputs: &mut Outputs,
        _: Size,
        wanted: Wanted<'_>,
        found: &mut Vec<Candidate>,
    ) -> Result<(), String> {
        let distances = 4 * self.bins;
        match &self.source {
            Source::Joined(name) => {
                let data = outputs.take_only_f32(name, &[self.cells.len(), self.classes + distances])?;
                for (row, cell) in data.chunks_exact(self.classes + distances).zip(&self.cells) {
                    let (scores, places) = row.split_at(self.classes);
                    numbers(name, scores)?;
                    self.cell(scores, places, *cell, wanted, found);
                }
            }
            Source::Grids(grids) => {
                let mut cells = self.cells.iter();
                for (rows, name, places) in grids {
                    let scores = outputs.take_only_f32(name, &[*rows, self.classes])?;
                    numbers(name, &scores)?;
                    let places = outputs.take_only_f32(places, &[*rows, distances])?;
                    let rows = scores.chunks_exact(self.classes).zip(places.chunks_exact(distances));
                    for ((scores, places), cell) in rows.zip(cells.by_ref()) {
                        self.cell(scores, places, *cell, wanted, found);
                    }
                }
            }
        }
        Ok(())
    }
}

/// `FastestDet`: one grid, its channels before its cells: objectness, where the box is, and a share a class, all of it
/// activated already but the box.
///
/// `[1, 5 + classes, rows, columns]`. The centre is `(tanh(t) + cell) / grid` and the size `sigmoid(t)`, in fractions of
/// the image; the score is `objectness^0.6 · class^0.4` (`handle_preds` in `utils/tool.py`). A cell has one class, the best.
pub(super) struct Fastest {
    output: String,
    columns: usize,
    rows: usize,
    classes: usize,
    image: Size,
}

impl Fastest {
    pub(super) fn of(head: &Head, image: Size, classes: usize, engine: &dyn Engine) -> Result<Self, String> {
        let [stride] = head.strides[..] else {
            return Err("head.strides: should be the one grid's step in pixels, as in [16]".to_owned());
        };
        check(&[stride])?;
        let Size { width, height } = grid(image, stride);
        let (columns, rows) = (width as usize, height as usize);
        let wanted = [1, 5 + classes, rows, columns];
        let fits = |port: &&Port| port.element.is_float() && port.has_shape(&wanted.map(Some));
        let output = engine.outputs().iter().find(fits).ok_or_else(|| {
            let (width, have) = (5 + classes, listed(engine.outputs()));
            format!("head: with this stride and {classes} classes an output should be f32[1,{width},{rows},{columns}]; there are {have}")
        })?;
        Ok(Self { output: output.name.clone(), columns, rows, classes, image })
    }

    /// From what is told of a box in the cell of a column and a row.
    fn corners(&self, [x, y, w, h]: [f32; 4], column: usize, row: usize) -> [f32; 4] {
        let (width, height) = (self.image.width as f32, self.image.height as f32);
        let (cx, cy) = (
            (x.tanh() + column as f32) / self.columns as f32 * width,
            (y.tanh() + row as f32) / self.rows as f32 * height,
        );
        corners([cx, cy, sigmoid(w) * width, sigmoid(h) * height])
    }
}

impl Layout for Fastest {
    fn read(
        &self,
        outputs: &mut Outputs,
        _: Size,
        wanted: Wanted<'_>,
        found: &mut Vec<Candidate>,
    ) -> Result<(), String> {
        let area = self.rows * self.columns;
        let data = outputs.take_only_f32(&self.output, &[5 + self.classes, self.rows, self.columns])?;
        numbers(&self.output, data[..area].iter().chain(&data[5 * area..]))?;
        for at in 0..area {
            let value = |channel: usize| data[channel * area + at];
            let (class, share) = best((5..5 + self.classes).map(value));
            let score = value(0).powf(0.6) * share.powf(0.4);
            let (class, least) = match wanted {
                Wanted::Things(least) => (0, least),
                Wanted::Classes(least) => (class, least[class]),
            };
            if score >= least {
                let corners = self.corners([1, 2, 3, 4].map(value), at % self.columns, at / self.columns);
                found.push(Candidate { corners, class, score });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::engine::{Element, Tensor};

    #[test]
    fn a_distance_is_the_mean_of_its_bins() {
        assert!((mean(&[0.0; 8]) - 3.5).abs() < 1e-6);
        assert!((mean(&[-1e9, -1e9, 500.0, -1e9]) - 2.0).abs() < 1e-6);
        assert!((mean(&[0.0, 0.0, f32::NEG_INFINITY]) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn fastestdet_is_read_by_its_published_formulas() {
        // Two columns, one row, two classes: objectness, x, y, w, h, and the shares, each for the left cell and the right.
        let channels = [0.5, 0.8, 0.0, 0.5, 0.0, -0.5, 0.0, -1.0, 0.0, 1.0, 0.25, 0.3, 0.5, 0.1];
        let layout = Fastest { output: "out".to_owned(), columns: 2, rows: 1, classes: 2, image: Size::new(32, 16) };
        let read = |wanted: Wanted<'_>| {
            let tensor = Tensor::f32s(&[1, 7, 1, 2], channels.to_vec());
            let mut found = Vec::new();
            layout.read(&mut Outputs::new(vec![("out".into(), tensor)]), layout.image, wanted, &mut found).unwrap();
            found
        };
        // By hand: tanh 0.5 = 0.46212, sigmoid 1 = 0.73106, sigmoid -1 = 0.26894; 0.5^0.6 · 0.5^0.4 = 0.5, and
        // 0.8^0.6 · 0.3^0.4 = e^(-0.13389 - 0.48159) = 0.54041.
        let expected = [([-8.0, -4.0, 8.0, 4.0], 1, 0.5), ([19.09088, -13.2424, 27.69696, -1.54544], 0, 0.54041)];
        let found = read(Wanted::Classes(&[0.0, 0.0]));
        assert_eq!(found.len(), 2);
        for (got, (corners, class, score)) in found.iter().zip(expected) {
            assert!(got.corners.iter().zip(corners).all(|(a, b)| (a - b).abs() < 1e-3), "{got:?} {corners:?}");
            assert!(got.class == class && (got.score - score).abs() < 1e-4, "{got:?}");
        }
        let right = [Candidate { class: 0, ..found[1] }];
        assert_eq!(read(Wanted::Classes(&[0.54, f32::INFINITY])), right);
        assert_eq!(read(Wanted::Things(0.51)), right);
    }

    /// What one output of a layout says in its only cell, of two classes that are both wanted.
    fn read(layout: &dyn Layout, shape: &[usize], data: &[f32]) -> Result<usize, String> {
        let tensor = Tensor::f32s(shape, data.to_vec());
        let mut found = Vec::new();
        let outputs = &mut Outputs::new(vec![("out".into(), tensor)]);
        layout.read(outputs, Size::new(8, 8), Wanted::Classes(&[0.1, 0.1]), &mut found)?;
        Ok(found.len())
    }

    #[test]
    fn scores_that_are_no_numbers_are_no_miss() {
        let (output, cells) = ("out".to_owned(), vec![[0.0, 0.0, 8.0]]);
        let yolox = Yolox { output: output.clone(), strides: vec![8], classes: 2, decoded: true };
        let (source, activation) = (Source::Joined(output.clone()), Activation::None);
        let distances = Distances { source, cells, classes: 2, bins: 2, centre: 0.5, activation };
        let fastest = Fastest { output, columns: 1, rows: 1, classes: 2, image: Size::new(8, 8) };
        let spoil = |layout: &dyn Layout, shape: &[usize], data: &[f32], scores: &[usize]| {
            assert_eq!(read(layout, shape, data), Ok(1));
            for at in scores {
                let mut spoilt = data.to_vec();
                spoilt[*at] = f32::NAN;
                assert_eq!(read(layout, shape, &spoilt), Err(crate::ground::models::not_numbers("out")), "{at}");
            }
        };
        spoil(&yolox, &[1, 1, 7], &[4.0, 4.0, 2.0, 2.0, 0.9, 0.8, 0.1], &[4, 5, 6]);
        spoil(&distances, &[1, 1, 10], &[0.9, 0.05, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0], &[0, 1]);
        spoil(&fastest, &[1, 7, 1, 1], &[0.9, 0.0, 0.0, 0.0, 0.0, 0.8, 0.1], &[0, 5, 6]);
    }

    #[test]
    fn an_output_may_be_in_half_precision() {
        let port = |element| Port::new("out", element, &[Some(1), Some(80), Some(10)]);
        for (element, may) in [(Element::F32, true), (Element::F16, true), (Element::I64, false)] {
            assert_eq!(may_be(&port(element), 80, 10), may);
        }
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "exact by construction")]
    fn grids_cover_what_is_left_over() {
        let got: Vec<_> = cells(&[8, 64], Size::new(20, 9)).collect();
        assert_eq!((got.len(), count(&[8, 64], Size::new(20, 9))), (3 * 2 + 1, 3 * 2 + 1));
        assert_eq!(got[4], [1.0, 1.0, 8.0]);
        assert_eq!(got[6], [0.0, 0.0, 64.0]);
        assert!(check(&[]).is_err() && check(&[8, 0]).is_err() && check(&[1024]).is_ok());
    }
}
