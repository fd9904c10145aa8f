//! The commands on image files: create, convert, inspect and check.

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
