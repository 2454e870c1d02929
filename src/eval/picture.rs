//! Image files: their size before anything is asked, their pixels when it is.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, metadata::Orientation};

use crate::types::{Rgb, Size};

/// Extensions of files that can be read.
pub const EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];

/// An image file whose header has been read.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The file.
    pub path: PathBuf,
    /// Its size in the pixels that boxes are given in.
    pub size: Size,
    turn: Orientation,
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// It cannot be read, or is no image.
    #[error("{}: cannot be read as an image: {reason}; groundd reads JPEG and PNG. Put the image there, or take its \
             records out of the data set", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It is not of the size that its record gives.
    #[error("{}: is {}x{}, but its record says {}x{}, so its boxes would be somewhere else; use the images that the \
             boxes were drawn on", .path.display(), .found.width, .found.height, .declared.width, .declared.height)]
    Size {
        /// The file.
        path: PathBuf,
        /// Its own size.
        found: Size,
        /// The size in the data set.
        declared: Size,
    },
}

impl Picture {
    /// Reads a file's header. What is `declared` of its size must be true of the pixels as they are stored or as they are
    /// shown (turned as the camera noted); boxes are taken to be drawn on the picture as shown unless that contradicts it.
    pub fn measure(path: &Path, declared: Option<Size>) -> Result<Self, PictureError> {
        let unreadable = |e: ImageError| Self::unreadable(path, &e);
        let mut decoder = decoder(path).map_err(unreadable)?;
        let (width, height) = decoder.dimensions();
        let stored = Size::new(width, height);
        let turn = decoder.orientation().map_err(unreadable)?;
        let shown = if sideways(turn) { Size::new(height, width) } else { stored };
        let (size, turn) = match declared {
            Some(declared) if declared == shown => (shown, turn),
            Some(declared) if declared == stored => (stored, Orientation::NoTransforms),
            Some(declared) => return Err(PictureError::Size { path: path.to_owned(), found: stored, declared }),
            None => (shown, turn),
        };
        Ok(Self { path: path.to_owned(), size, turn })
    }

    /// Reads the pixels.
    pub fn read(&self) -> Result<Rgb, PictureError> {
        let unreadable = |e: ImageError| Self::unreadable(&self.path, &e);
        let mut image = DynamicImage::from_decoder(decoder(&self.path).map_err(unreadable)?).map_err(unreadable)?;
        image.apply_orientation(self.turn);
        let image = image.into_rgb8();
        let found = Size::new(image.width(), image.height());
        let changed = PictureError::Size { path: self.path.clone(), found, declared: self.size };
        Rgb::new(found, image.into_raw()).filter(|_| found == self.size).ok_or(changed)
    }

    fn unreadable(path: &Path, error: &ImageError) -> PictureError {
        PictureError::Unreadable { path: path.to_owned(), reason: error.to_string() }
    }
}

fn decoder(path: &Path) -> Result<impl ImageDecoder + use<>, ImageError> {
    // What a file is, its content tells; names lie.
    ImageReader::new(BufReader::new(File::open(path)?)).with_guessed_format()?.into_decoder()
}

fn sideways(turn: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(turn, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder};

    use super::*;

    /// A grey JPEG of 24x8, brighter on the left, that a camera noted as turned: EXIF orientation 6.
    fn turned(path: &Path) {
        let pixels: Vec<u8> = (0..24 * 8).map(|i| if i % 24 < 12 { 230 } else { 20 }).collect();
        let mut encoder = JpegEncoder::new(File::create(path).unwrap());
        // TIFF header, one entry: tag 0x0112, SHORT, one value, 6.
        let exif = [b"MM\0*\0\0\0\x08\0\x01".as_slice(), &[0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0], &[0, 0, 0, 0]];
        encoder.set_exif_metadata(exif.concat()).unwrap();
        encoder.write_image(&pixels, 24, 8, ExtendedColorType::L8).unwrap();
    }

    #[test]
    fn a_picture_is_taken_as_shown_unless_its_record_says_as_stored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("turned.jpg");
        turned(&path);
        let (shown, stored) = (Size::new(8, 24), Size::new(24, 8));
        for (declared, size) in [(None, shown), (Some(shown), shown), (Some(stored), stored)] {
            let picture = Picture::measure(&path, declared).unwrap();
            assert_eq!(picture.size, size);
            let pixels = picture.read().unwrap();
            assert_eq!(pixels.size, size);
            let last = pixels.data.len() - 3;
            assert!(pixels.data[0] > 200 && pixels.data[last] < 60);
        }
        let wrong = Picture::measure(&path, Some(Size::new(12, 4))).unwrap_err().to_string();
        assert!(["turned.jpg", "24x8", "12x4"].iter().all(|word| wrong.contains(word)), "{wrong}");
    }

    #[test]
    fn what_is_no_image_is_said_to_be_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text.jpg");
        fs::write(&path, "not an image").unwrap();
        for path in [path, folder.path().join("absent.png")] {
            let error = Picture::measure(&path, None).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()) && error.contains("JPEG and PNG"), "{error}");
        }
    }
}
