//! Where tracked objects are, for those who look for them again: tracking writes it, the model's methods may read it.

use std::{collections::HashMap, sync::Mutex};

use super::{BBox, CameraId, QueryId, lock};

/// Objects that answer a query, and where they should be now.
pub type Objects = Vec<(QueryId, BBox)>;

/// The latest of every camera. Old news is no harm: it is where to look first, not what is there.
#[derive(Debug, Default)]
pub struct Followed(Mutex<HashMap<CameraId, Objects>>);

impl Followed {
    /// Puts `objects` in the place of what was known of `camera`.
    pub fn set(&self, camera: &CameraId, objects: Objects) {
        let mut known = lock(&self.0);
        if objects.is_empty() {
            known.remove(camera);
        } else {
            known.insert(camera.clone(), objects);
        }
    }

    /// Where the objects that answer `query` should be on `camera`, in source pixels.
    pub fn of(&self, camera: &CameraId, query: &QueryId) -> Vec<BBox> {
        let known = lock(&self.0);
        let objects = known.get(camera).into_iter().flatten().filter(|(id, _)| id == query);
        objects.map(|(_, bbox)| *bbox).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_of_a_camera_stands_in_the_place_of_what_was_known_and_of_no_other_camera() {
        let (gate, yard) = (CameraId::new("gate").unwrap(), CameraId::new("yard").unwrap());
        let (car, dog) = (QueryId::new("car").unwrap(), QueryId::new("dog").unwrap());
        let at = |x: f32| BBox::new(x, 0.0, x + 10.0, 10.0).unwrap();
        let followed = Followed::default();
        assert!(followed.of(&gate, &car).is_empty());
        followed.set(&gate, vec![(car.clone(), at(0.0)), (dog.clone(), at(20.0)), (car.clone(), at(40.0))]);
        followed.set(&yard, vec![(car.clone(), at(60.0))]);
        assert_eq!(followed.of(&gate, &car), [at(0.0), at(40.0)]);
        assert_eq!(followed.of(&gate, &dog), [at(20.0)]);
        followed.set(&gate, vec![(dog.clone(), at(30.0))]);
        assert_eq!((followed.of(&gate, &car), followed.of(&gate, &dog)), (vec![], vec![at(30.0)]));
        followed.set(&gate, Vec::new());
        assert_eq!((followed.of(&gate, &dog), followed.of(&yard, &car)), (vec![], vec![at(60.0)]));
    }
}
