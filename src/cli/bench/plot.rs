//! Throughput, delay and memory against the number of cameras, as one SVG.

use plotters::{
    prelude::{BLACK, ChartBuilder, Circle, IntoDrawingArea, IntoFont, LineSeries, PathElement, SVGBackend, WHITE},
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
}

const PANELS: [Panel; 3] = [
    Panel { title: "analysed frames a second", value: |n| Some(n.analysed_per_s) },
    Panel { title: "delay p95, ms", value: |n| n.latency_ms.as_ref().map(|spread| spread.p95) },
    Panel { title: "memory, MB", value: |n| Some(n.rss_mb) },
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

type Area<'a> = plotters::drawing::DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

impl Panel {
    fn draw(&self, area: &Area<'_>, cases: &[Case]) -> Result<(), String> {
        let lines = self.lines(cases);
        let points = || lines.iter().flat_map(|(_, points)| points);
        let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(1.0, f64::max) * 1.1;
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, ("sans-serif", 16).into_font().into_text_style(area))
            .margin(10)
            .x_label_area_size(34)
            .y_label_area_size(46)
            .build_cartesian_2d(0.0..most(|p| p.0), 0.0..most(|p| p.1))
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
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()
            .map_err(|e| e.to_string())
    }

    /// One line a system, in the order of the table.
    fn lines<'a>(&self, cases: &'a [Case]) -> Vec<(&'a str, Vec<(f64, f64)>)> {
        let mut lines: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
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
