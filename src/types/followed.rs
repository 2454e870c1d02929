//! Where tracked objects are, for those who look for them again: tracking writes it, the model's methods may read it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::{BBox, CameraId, QueryId};

/// Objects that answer a query, and where they should be now.
pub type Objects = Vec<(QueryId, BBox)>;

/// The latest of every camera. Old news is no harm: it is where to look first, not what is there.
#[derive(Debug, Default)]
pub struct Followed(Mutex<HashMap<CameraId, Objects>>);

impl Followed {
    /// Puts `objects` in the place of what was known of `camera`.
    pub fn set(&self, camera: &CameraId, objects: Objects) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if objects.is_empty() {
            known.remove(camera);
        } else {
            known.insert(camera.clone(), objects);
        }
    }

    /// Where the objects that answer `query` should be on `camera`, in source pixels.
    pub fn of(&self, camera: &CameraId, query: &QueryId) -> Vec<BBox> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let objects = known.get(camera).into_iter().flatten().filter(|(id, _)| id == query);
        objects.map(|(_, bbox)| *bbox).collect()
    }
}
