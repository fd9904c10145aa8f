//! The picture of the guest, as display servers read it.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use vm_memory::VolatileSlice;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::memory::VideoMemory;
use crate::protocol::{
    Mode, PointerShape, Rectangle, Region, Resolution, ResolutionError, resolutions,
};

/// The guest's screen. Clones are handles to the same screen.
#[derive(Clone)]
pub struct Screen {
    memory: Arc<dyn VideoMemory>,
    state: Arc<Mutex<State>>,
}

struct State {
    mode: Option<Mode>,
    generation: u64,
    pointer: Pointer,
    preferred: Resolution,
    watches: Vec<Weak<Watch>>,
}

/// A frame: pixels in guest memory, and their layout. A row has
/// [`width`](crate::protocol::Mode::width) pixels of blue, green, red and an unused byte.
///
/// The pixels may change while they are read; [`ScreenWatch`] then reports them again. After a
/// change of the mode the frame is outdated, and its bytes may be any of video memory.
#[derive(Clone)]
pub struct Frame {
    memory: Arc<dyn VideoMemory>,
    mode: Mode,
    generation: u64,
}

/// The guest's pointer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointer {
    /// Whether it is visible.
    pub is_visible: bool,
    /// The column of the pixel that points. May be outside of the screen.
    pub x: i32,
    /// The row of the pixel that points. May be outside of the screen.
    pub y: i32,
    /// Its shape. `None`: the guest has sent none.
    pub shape: Option<PointerShape>,
}

/// The changes of a screen since they were last taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The mode has changed: there is another [`Screen::frame`], or none.
    pub is_mode_changed: bool,
    /// The changed pixels of the frame. After a change of the mode, all of them.
    pub region: Region,
    /// The pointer has moved, appeared or disappeared.
    pub is_pointer_moved: bool,
    /// The pointer has another shape.
    pub is_shape_changed: bool,
}

/// A display server's subscription to the changes of a screen. It has bounded memory, so a server
/// that takes no changes delays nothing.
pub struct ScreenWatch {
    watch: Arc<Watch>,
}

struct Watch {
    changes: Mutex<Changes>,
    event: EventFd,
}

impl Screen {
    /// Returns a blank screen over `memory`.
    pub(crate) fn new(memory: Arc<dyn VideoMemory>, preferred: Resolution) -> Self {
        let state = State {
            mode: None,
            generation: 0,
            pointer: Pointer::default(),
            preferred,
            watches: Vec::new(),
        };
        Self { memory, state: Arc::new(Mutex::new(state)) }
    }

    /// Returns the frame. `None`: the guest shows none, and the screen is blank.
    pub fn frame(&self) -> Option<Frame> {
        let State { mode, generation, .. } = *self.lock();
        Some(Frame { memory: Arc::clone(&self.memory), mode: mode?, generation })
    }

    /// Returns the pointer. Linux hides it and draws its own into the frame.
    pub fn pointer(&self) -> Pointer {
        self.lock().pointer.clone()
    }

    /// Subscribes to changes. The first changes are all of the screen.
    ///
    /// # Errors
    /// The system is out of file descriptors.
    pub fn watch(&self) -> io::Result<ScreenWatch> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let watch = Arc::new(Watch { changes: Mutex::default(), event });
        let mut state = self.lock();
        watch.change(|changes| {
            changes.set_mode(state.mode);
            changes.is_pointer_moved = true;
            changes.is_shape_changed = true;
        });
        state.watches.retain(|watch| watch.strong_count() != 0);
        state.watches.push(Arc::downgrade(&watch));
        Ok(ScreenWatch { watch })
    }

    /// Returns the resolution that the guest is told to prefer.
    pub fn preferred_resolution(&self) -> Resolution {
        self.lock().preferred
    }

    /// Requests a resolution. A guest asks for it when its driver starts, and no host can make it
    /// ask again: Linux keeps the present mode until its driver is loaded again.
    ///
    /// # Errors
    /// [`ResolutionError`].
    pub fn request_resolution(&self, resolution: Resolution) -> Result<(), ResolutionError> {
        resolution.check(self.vram())?;
        self.lock().preferred = resolution;
        Ok(())
    }

    /// Returns the bytes of video memory.
    pub(crate) fn vram(&self) -> u64 {
        self.memory.bytes().len() as u64
    }

    pub(crate) fn memory(&self) -> &dyn VideoMemory {
        &*self.memory
    }

    /// Returns the resolutions to offer, the preferred one first.
    pub(crate) fn resolutions(&self) -> Vec<Resolution> {
        resolutions(self.preferred_resolution(), self.vram())
    }

    /// Sets the mode, and returns whether it is another one. `None`: blank, without a pointer.
    pub(crate) fn set_mode(&self, mode: Option<Mode>) -> bool {
        let mut state = self.lock();
        if state.mode == mode {
            // The guest may have drawn without telling.
            state.change(|changes| changes.region.add_all(mode));
            return false;
        }
        state.mode = mode;
        state.generation += 1;
        if mode.is_none() {
            state.pointer = Pointer::default();
        }
        state.change(|changes| {
            changes.set_mode(mode);
            changes.is_pointer_moved |= mode.is_none();
            changes.is_shape_changed |= mode.is_none();
        });
        true
    }

    /// Reports changed pixels, which are on the screen.
    pub(crate) fn add_dirty(&self, rectangles: &[Rectangle]) {
        if !rectangles.is_empty() {
            self.lock()
                .change(|changes| rectangles.iter().for_each(|one| changes.region.add(*one)));
        }
    }

    pub(crate) fn move_pointer(&self, is_visible: bool, x: i32, y: i32) {
        let mut state = self.lock();
        let pointer = &mut state.pointer;
        (pointer.is_visible, pointer.x, pointer.y) = (is_visible, x, y);
        state.change(|changes| changes.is_pointer_moved = true);
    }

    pub(crate) fn set_shape(&self, shape: PointerShape) {
        let mut state = self.lock();
        state.pointer.shape = Some(shape);
        state.change(|changes| changes.is_shape_changed = true);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("mode", &self.lock().mode).finish_non_exhaustive()
    }
}

impl State {
    fn change(&self, apply: impl Fn(&mut Changes)) {
        self.watches.iter().filter_map(Weak::upgrade).for_each(|watch| watch.change(&apply));
    }
}

impl Frame {
    /// Returns the layout.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns a number that changes with the mode.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the pixels of row `y`. `None`: there is no such row.
    pub fn row(&self, y: u32) -> Option<VolatileSlice<'_>> {
        if y >= self.mode.height() {
            return None;
        }
        let start = u64::from(self.mode.offset()) + u64::from(self.mode.stride()) * u64::from(y);
        let length = usize::try_from(self.mode.width()).ok()?.checked_mul(4)?;
        self.memory.bytes().subslice(usize::try_from(start).ok()?, length).ok()
    }
}

impl Changes {
    fn set_mode(&mut self, mode: Option<Mode>) {
        self.is_mode_changed = true;
        self.region.clear();
        self.region.add_all(mode);
    }
}

impl Region {
    fn add_all(&mut self, mode: Option<Mode>) {
        if let Some(mode) = mode {
            self.add(Rectangle { left: 0, top: 0, right: mode.width(), bottom: mode.height() });
        }
    }
}

impl ScreenWatch {
    /// Takes the changes, and clears the descriptor. Does not wait.
    pub fn take(&self) -> Changes {
        let mut changes = self.watch.lock();
        // Empty if the changes were taken before.
        let _ = self.watch.event.read();
        std::mem::take(&mut changes)
    }
}

/// Readable while there are changes to take.
impl AsRawFd for ScreenWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.watch.event.as_raw_fd()
    }
}

impl Watch {
    fn change(&self, apply: impl FnOnce(&mut Changes)) {
        let mut changes = self.lock();
        let was_empty = *changes == Changes::default();
        apply(&mut changes);
        if was_empty && *changes != Changes::default() {
            // A write fails only if the counter is full, and then it is readable already.
            let _ = self.event.write(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
