//! Boxes in what a search found, by the model's own method, mapped back to the source.

use super::{Eye, Judge, Stop, bbox, size};
use crate::{
    ground::{
        methods::{Hit, regions::Pick, written},
        zoom::{
            crop::{self, Corners},
            tree::Area,
        },
    },
    types::{BBox, Query, Size},
};

impl<W: Judge> Eye<'_, W> {
    /// Locates in the whole picture.
    pub(super) fn locate_in_all(&mut self, query: &Query) -> Result<Vec<Hit>, Stop> {
        let seen = self.whole()?;
        let raw = self.model.locate(&[(&seen, query.text.as_str())])?.concat();
        let found = written::chosen(&raw, self.frame.source(), least(query));
        Ok(found.into_iter().map(|(pick, kind)| Hit { pick, kind, crop: None }).collect())
    }

    /// Locates in areas: in one crop if what they show is `related`, in as few as their nearness allows otherwise.
    pub(super) fn locate_near(&mut self, areas: &[Area], query: &Query, related: bool) -> Result<Vec<Hit>, Stop> {
        // An area as large as the picture is the picture.
        let all = Area::whole(self.frame.source());
        let crops: Vec<Corners> = areas.iter().filter(|area| **area != all).map(|area| self.shown(area)).collect();
        match crops.iter().copied().reduce(|a, b| crop::union(&a, &b)) {
            None => Ok(Vec::new()),
            Some(hull) if related => self.locate_in(&[hull], query),
            Some(_) => self.locate_in(&crop::merged(&crops), query),
        }
    }

    fn locate_in(&mut self, crops: &[Corners], query: &Query) -> Result<Vec<Hit>, Stop> {
        let Some(full) = &self.frame.full else { return Ok(Vec::new()) };
        let crops: Vec<_> = crops.iter().filter_map(|corners| Some((bbox(*corners)?, size(*corners)))).collect();
        let cut = |(crop, size): &(BBox, Size)| full.crop(crop, *size).map_err(Stop::Picture);
        let pictures = crops.iter().map(cut).collect::<Result<Vec<_>, _>>()?;
        let seen = self.look(&pictures.iter().collect::<Vec<_>>())?;
        let asks: Vec<_> = seen.iter().map(|seen| (seen, query.text.as_str())).collect();
        let raw = self.model.locate(&asks)?;
        let mut hits = Vec::new();
        for ((crop, size), raw) in crops.into_iter().zip(raw) {
            let [left, top, ..] = crop.corners();
            let found = written::chosen(&raw, size, least(query)).into_iter();
            hits.extend(found.filter_map(|(pick, kind)| {
                let [x1, y1, x2, y2] = pick.bbox.corners();
                let bbox = BBox::new(x1 + left, y1 + top, x2 + left, y2 + top)?;
                Some(Hit { pick: Pick { bbox, ..pick }, kind, crop: Some(crop) })
            }));
        }
        Ok(hits)
    }
}

/// The least score of a match; a query without a threshold of its own gets every box.
fn least(query: &Query) -> f32 {
    query.threshold.unwrap_or(0.0)
}
