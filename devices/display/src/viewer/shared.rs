//! What viewers share.

use synthvm_input::Input;
use synthvm_video::Screen;

use crate::canvas::Canvas;
use crate::counters::Counters;
use crate::encode::{EncodeCache, Encoder};

/// What viewers share.
pub(crate) struct Shared<'a> {
    pub(crate) screen: &'a Screen,
    pub(crate) input: &'a Input,
    pub(crate) canvas: &'a Canvas,
    pub(crate) encoder: &'a mut Encoder,
    /// `None`: there is one viewer.
    pub(crate) cache: Option<&'a mut EncodeCache>,
    pub(crate) counters: &'a Counters,
    pub(crate) name: &'a str,
}
