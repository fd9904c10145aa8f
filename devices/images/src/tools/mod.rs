//! What people do with image files: make, convert, look at and check them.

mod check;
mod convert;
mod create;
mod error;
mod info;
mod partial;

pub use check::{CheckReport, check};
pub use convert::{ConvertOptions, Progress, convert};
pub use create::{CreateOptions, create};
pub use error::ToolError;
pub use info::{ImageInfo, info};
