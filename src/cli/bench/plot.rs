//! Throughput, delay and memory against the number of cameras, as one SVG.

use plotters::{
    coord::ranged1d::{AsRangedCoord, ValueFormatter},
    prelude::{
        BLACK, ChartBuilder, Circle, IntoDrawingArea, IntoFont, IntoLogRange, LineSeries, PathElement, SVGBackend,
        SeriesLabelPosition, WHITE,
    },
    series::PointSeries,
    style::{Color, IntoTextStyle as _, RGBColor},
};

use super::system::{Case, Numbers};

const SIZE: (u32, u32) = (1200, 420);
/// Colours that also differ in lightness.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 90, 181),
    RGBColor(220, 50, 32),
    RGBColor(230, 159, 0),
    RGBColor(0, 130, 90),
    RGBColor(120, 60, 160),
    RGBColor(90, 90, 90),
];

struct Panel {
    title: &'static str,
    value: fn(&Numbers) -> Option<f64>,
    /// Whether values differ by orders of magnitude.
    wide: bool,
}

const PANELS: [Panel; 3] = [
    Panel { title: "analysed frames a second", value: |n| Some(n.analysed_per_s), wide: false },
    Panel { title: "delay p95, ms", value: |n| n.latency_ms.as_ref().map(|spread| spread.p95), wide: true },
    Panel { title: "memory, MB", value: |n| Some(n.rss_mb), wide: true },
];

/// The drawing.
pub(super) fn draw(cases: &[Case]) -> Result<String, String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|e| e.to_string())?;
        for (area, panel) in root.split_evenly((1, PANELS.len())).into_iter().zip(&PANELS) {
            panel.draw(&area, cases)?;
        }
        root.present().map_err(|e| e.to_string())?;
    }
    Ok(svg)
}

/// A system's name, and its value by cameras.
type Line<'a> = (&'a str, Vec<(f64, f64)>);

type Area<'a> = plotters::drawing::DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

impl Panel {
    fn draw(&self, area: &Area<'_>, cases: &[Case]) -> Result<(), String> {
        let lines = self.lines(cases);
        let values = || lines.iter().flat_map(|(_, points)| points).map(|point| point.1);
        let most = values().fold(1.0, f64::max);
        // The legend lies above the lines.
        if self.wide {
            let least = values().fold(most, f64::min).max(1.0) / 1.5;
            self.on_axes(area, &lines, (least..most * 8.0).log_scale())
        } else {
            self.on_axes(area, &lines, 0.0..most * 1.6)
        }
    }

    fn on_axes<Y>(&self, area: &Area<'_>, lines: &[Line<'_>], y: Y) -> Result<(), String>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let cameras = lines.iter().flat_map(|(_, points)| points).map(|point| point.0).fold(1.0, f64::max);
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, ("sans-serif", 16).into_font().into_text_style(area))
            .margin(10)
            .x_label_area_size(34)
            .y_label_area_size(46)
            .build_cartesian_2d(0.0..cameras * 1.1, y)
            .map_err(|e| e.to_string())?;
        chart
            .configure_mesh()
            .x_desc("cameras")
            .light_line_style(WHITE)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw()
            .map_err(|e| e.to_string())?;
        for ((name, points), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            let colour = *colour;
            chart
                .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))
                .map_err(|e| e.to_string())?
                .label(*name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 14, y)], colour.stroke_width(2)));
            chart
                .draw_series(PointSeries::<_, _, Circle<_, _>, _>::new(points.clone(), 3, colour.filled()))
                .map_err(|e| e.to_string())?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()
            .map_err(|e| e.to_string())
    }

    /// One line a system, in the order of the table.
    fn lines<'a>(&self, cases: &'a [Case]) -> Vec<Line<'a>> {
        let mut lines: Vec<Line<'_>> = Vec::new();
        for case in cases {
            let Some(value) = case.numbers.as_ref().and_then(self.value) else { continue };
            let point = (case.streams as f64, value);
            match lines.iter_mut().find(|(name, _)| *name == case.system) {
                Some((_, points)) => points.push(point),
                None => lines.push((&case.system, vec![point])),
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cli::bench::{bare::Bare, system::Spread};

    fn case(system: &str, streams: usize, [analysed_per_s, p95, rss_mb]: [f64; 3]) -> Case {
        let latency_ms = (p95 > 0.0).then_some(Spread { p50: p95 / 2.0, p95, p99: p95, count: 9 });
        let numbers = Numbers {
            offered_per_s: 15.0,
            analysed_per_s,
            unanswered: 0.0,
            cpu_ms_per_frame: 10.0,
            over_bare: 1.2,
            over_bare_shown: None,
            of_possible: 1.0,
            latency_ms,
            stages_ms: BTreeMap::new(),
            rss_mb,
            world_cpu: 0.0,
            bare: Bare::default(),
        };
        Case { system: system.to_owned(), streams, is_own: false, note: None, numbers: Some(numbers) }
    }

    #[test]
    fn delays_far_apart_are_drawn_and_so_is_nothing_at_all() {
        let cases = [
            case("one", 1, [15.0, 17.0, 157.0]),
            case("one", 32, [51.0, 251.0, 695.0]),
            case("other", 1, [15.0, 153.0, 141.0]),
            case("other", 32, [3.3, 16042.0, 754.0]),
            case("silent", 1, [0.0, 0.0, 100.0]),
        ];
        let svg = draw(&cases).unwrap();
        for words in ["one", "other", "silent", "delay p95, ms", "memory, MB"] {
            assert!(svg.contains(words), "{words}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert!(draw(&[]).unwrap().contains("cameras"));
    }
}
