//! Accuracy against cost, a point a method: left what it takes on this machine, right what it takes on any.

use std::{convert::Infallible, path::Path};

use plotters::{
    coord::Shift,
    drawing::DrawingAreaErrorKind,
    prelude::{
        ChartBuilder, Circle, Color as _, DrawingArea, IntoDrawingArea, IntoLogRange, PathElement, RGBColor, Text,
    },
    style::{IntoFont, IntoTextStyle, TextStyle, WHITE},
};

use super::{
    ink::{self, Ink, LINE},
    report::Report,
};
use crate::eval::{Figures, Spread};

const SIZE: (u32, u32) = (1400, 640);
const MARGIN: u32 = 12;
const LABELS: u32 = 60;
/// Radius of a point.
const DOT: i32 = 7;
/// Between a point and its label.
const BESIDE: i32 = 12;

/// Told apart by people with any kind of colour vision: from the palette of Okabe and Ito.
const COLORS: [RGBColor; 5] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167), RGBColor(86, 60, 20)];

/// A method in one panel.
struct Point {
    name: &'static str,
    color: RGBColor,
    cost: Spread,
    accuracy: f64,
}

type Figure = fn(&Figures) -> Option<f64>;

/// Writes the plot.
pub(super) fn draw(report: &Report, path: &Path) -> Result<(), String> {
    let mut ink = Ink::blank(SIZE.0, SIZE.1, [255; 3]);
    panels(report, &mut ink).map_err(|e| e.to_string())?;
    ink.save(path).map_err(|e| e.to_string())
}

/// The figure that the data set is best judged by, and what it is called.
fn accuracy(report: &Report) -> (&'static str, Figure) {
    let all = |figure: Figure| report.methods.iter().any(|m| figure(&m.figures).is_some());
    let candidates: [(&'static str, Figure); 3] = [
        ("AP at IoU 0.5, mean over classes", |f| f.precision.ap50),
        ("accuracy at IoU 0.5, one thing", |f| f.accuracy),
        ("F1 at IoU 0.5", |f| f.f1),
    ];
    let wanted = if report.data.style.has_classes() { &candidates[..] } else { &candidates[1..] };
    wanted.iter().copied().find(|(_, figure)| all(*figure)).unwrap_or(candidates[2])
}

fn panels(report: &Report, ink: &mut Ink) -> Result<(), DrawingAreaErrorKind<Infallible>> {
    let (name, figure) = accuracy(report);
    let root = ink.into_drawing_area();
    let title = format!("{} on {}, {} images", report.model.id, report.data.name, report.data.images);
    let root = root.titled(&title, font())?;
    let (left, right) = root.split_horizontally(SIZE.0 / 2);
    for (area, cost_name, passes) in [(left, "ms a phrase", false), (right, "network passes a phrase", true)] {
        let points: Vec<Point> = report
            .methods
            .iter()
            .zip(COLORS.iter().cycle())
            .filter_map(|(m, color)| {
                let cost = if passes { m.cost.passes } else { m.cost.ms }?.query;
                Some(Point { name: m.method.name(), color: *color, cost, accuracy: figure(&m.figures)? })
            })
            .collect();
        panel(&area, name, cost_name, &points)?;
    }
    root.present()
}

fn font() -> TextStyle<'static> {
    // The family is a formality: all letters are those of `ink`.
    ("fixed", LINE).into_font().into_text_style(&SIZE)
}

fn panel(
    area: &DrawingArea<&mut Ink, Shift>,
    accuracy: &str,
    cost: &str,
    points: &[Point],
) -> Result<(), DrawingAreaErrorKind<Infallible>> {
    let dear = points.iter().map(|p| p.cost.p95.max(p.cost.p50)).fold(f64::MIN, f64::max);
    let cheap = points.iter().map(|p| p.cost.p50).fold(f64::MAX, f64::min);
    if points.is_empty() || !(cheap > 0.0 && dear.is_finite()) {
        return area.draw(&Text::new(format!("{cost}: not counted"), (60, 80), font()));
    }
    // Whole decades, so that the axis has labels however close the methods are.
    let decades = 10f64.powf(cheap.log10().floor())..10f64.powf((dear.log10() + 0.05).ceil());
    let best = points.iter().map(|p| p.accuracy).fold(0.0, f64::max);
    let top = ((best * 1.15 * 10.0).ceil() / 10.0).clamp(0.1, 1.1);
    let mut chart = ChartBuilder::on(area)
        .margin(MARGIN)
        .margin_right(MARGIN * 3)
        .x_label_area_size(LABELS)
        .y_label_area_size(LABELS + LINE)
        .build_cartesian_2d(decades.log_scale(), 0.0..top)?;
    chart
        .configure_mesh()
        .label_style(font())
        .axis_desc_style(font())
        .x_desc(format!("{cost} (median, line to p95)"))
        .y_desc(accuracy)
        .x_label_formatter(&|v| number(*v))
        .y_label_formatter(&|v| format!("{v:.2}"))
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    let (columns, rows) = area.get_pixel_range();
    let places = points.iter().map(|point| chart.backend_coord(&(point.cost.p50, point.accuracy)));
    let mut taken: Vec<Place> =
        places.map(|(x, y)| (x - columns.start - DOT, y - rows.start - LINE.cast_signed() / 2, 2 * DOT)).collect();
    for point in points {
        let at = (point.cost.p50, point.accuracy);
        let line = [at, (point.cost.p95.max(point.cost.p50), point.accuracy)];
        chart.draw_series([PathElement::new(line.to_vec(), point.color.stroke_width(3))])?;
        chart.draw_series([Circle::new(at, DOT, point.color.filled())])?;
        let label = format!("{} {:.3}", point.name, point.accuracy);
        let (x, y) = chart.backend_coord(&at);
        let (x, y) = free_place(&mut taken, (x - columns.start, y - rows.start), &label, columns.len());
        area.draw(&Text::new(label, (x, y), font().color(&point.color)))?;
    }
    Ok(())
}

/// Left edge, upper edge and width of something that is a line high.
type Place = (i32, i32, i32);

/// Where a label for the point at (`x`, `y`) can be read: beside it, above or below, where nothing else is.
fn free_place(taken: &mut Vec<Place>, (x, y): (i32, i32), label: &str, columns: usize) -> (i32, i32) {
    let (wide, line) = (ink::width(label).cast_signed(), LINE.cast_signed());
    let beyond = usize::try_from(x + wide + BESIDE).is_ok_and(|end| end > columns);
    let x = if beyond { x - wide - BESIDE } else { x + BESIDE };
    let clear = |y: i32| {
        taken.iter().all(|(left, top, width)| (y - top).abs() >= line || x >= left + width || *left >= x + wide)
    };
    let steps = (0..10).flat_map(|step| [y - line - 6 - step * line, y + 6 + step * line]);
    let y = steps.into_iter().find(|y| *y >= 0 && clear(*y)).unwrap_or(y);
    taken.push((x, y, wide));
    (x, y)
}

/// A tick of a logarithmic axis, as short as it can be said; only 1, 2 and 5 of a decade, since the others have no room.
fn number(v: f64) -> String {
    let digits = format!("{v:e}");
    match digits.as_bytes().first() {
        Some(b'1' | b'2' | b'5') if v >= 1.0 => format!("{v:.0}"),
        Some(b'1' | b'2' | b'5') => format!("{v}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        cli::eval::report::{CostReport, Data, MethodReport, Model},
        eval::{Bill, Style, precision::Precision},
        ground::Provider,
        types::Method,
    };

    fn method(method: Method, ap50: f64, ms: f64, passes: Option<f64>) -> MethodReport {
        let bill = |mean: f64| {
            let query = Spread { mean, p50: mean, p95: mean * 1.7 };
            Bill { frame: query, query }
        };
        let figures =
            Figures { precision: Precision { ap50: Some(ap50), ..Precision::default() }, ..Figures::default() };
        let cost = CostReport { frames: 9, ms: Some(bill(ms)), passes: passes.map(bill), tokens: None };
        let (score_kinds, refused, kinds) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        MethodReport { method, score_kinds, figures, cost, refused, kinds }
    }

    fn report(methods: Vec<MethodReport>) -> Report {
        let data = Data { path: "x".into(), name: "street".into(), style: Style::Coco, images: 9, unreadable: 0 };
        let (id, version, family) = ("nano@01234567".into(), "1".into(), "nano".into());
        let model =
            Model { id, version, family, provider: Provider::Cpu, onnx_runtime: "1".into(), threads: 1, detail: 1.0 };
        Report { v: 1, groundd: "0", data, model, threshold: None, zoom_passes: Some(6), methods }
    }

    fn painted(path: &Path, color: RGBColor, half: u32) -> usize {
        let plot = image::open(path).unwrap().into_rgb8();
        let pixels = plot.enumerate_pixels().filter(|(x, _, _)| x / (SIZE.0 / 2) == half);
        pixels.filter(|(_, _, p)| p.0 == [color.0, color.1, color.2]).count()
    }

    #[test]
    fn every_method_has_its_colour_in_both_panels_unless_its_passes_were_not_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plot.png");
        let methods = vec![
            method(Method::Retrieve, 0.41, 13.0, Some(2.0)),
            method(Method::Zoom, 0.52, 400.0, Some(46.0)),
            method(Method::Coords, 0.42, 14.0, Some(44.0)),
            method(Method::Bins, 0.41, 13.5, None),
            method(Method::Detector, 0.0, 9.0, Some(1.0)),
        ];
        draw(&report(methods), &path).unwrap();
        for (i, color) in COLORS.into_iter().enumerate() {
            assert!(painted(&path, color, 0) > 150, "method {i}");
            assert_eq!(painted(&path, color, 1) > 150, i != 3, "method {i}");
        }
        draw(&report(vec![method(Method::Bins, 0.4, 13.5, None)]), &path).unwrap();
        assert_eq!(painted(&path, COLORS[0], 1), 0, "nothing was counted, so nothing is drawn");
    }

    #[test]
    fn labels_of_methods_that_are_alike_can_be_told_apart() {
        let mut taken = Vec::new();
        let places: Vec<_> = (0..5).map(|i| free_place(&mut taken, (100 + i, 200), "retrieve 0.812", 600)).collect();
        for (i, (_, y)) in places.iter().enumerate() {
            assert!(places[..i].iter().all(|(_, other)| (y - other).abs() >= LINE.cast_signed()), "{places:?}");
        }
        assert_eq!(free_place(&mut Vec::new(), (590, 200), "zoom", 600).0, 590 - 40 - BESIDE);
    }

    #[test]
    fn ticks_are_few_and_short() {
        let ticks = [0.05, 0.3, 1.0, 2.0, 9.0, 50.0, 1000.0].map(number);
        assert_eq!(ticks, ["0.05", "", "1", "2", "", "50", "1000"]);
    }
}
