//! The display of a machine: video device, keyboard, mouse, and the commands that use them.

mod memory;
mod png;
mod report;
mod vnc;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use synthvm_display::{DisplayOptions, DisplayServer};
use synthvm_input::protocol::mouse::{Buttons, Report, coordinate};
use synthvm_input::{Input, InputError, keys};
use synthvm_machine::Machine;
use synthvm_video::{Screen, VideoDevice, VideoOptions};
use vmbus_device::{SharedLoop, WorkerOptions};
use vmbus_host::VmBus;

use self::memory::Vram;
use crate::config::{DisplayConfig, DisplayMode, VIDEO_MEMORY_BYTES};

pub use self::report::{DisplayReport, InputReport};
pub use self::vnc::{Vnc, VncError};

/// The display of a running machine.
#[derive(Debug)]
pub struct Display {
    video: VideoDevice,
    input: Input,
    server: DisplayServer,
    /// Keeps the file of its socket.
    _vnc: Option<Vnc>,
}

/// The size of a screenshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScreenSize {
    /// Pixels of a row.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
}

/// A position of the pointer and its buttons, for the control socket.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointerRequest {
    /// The column of the pixel; beyond the screen: its edge.
    pub x: u32,
    /// The row of the pixel; beyond the screen: its edge.
    pub y: u32,
    /// The buttons that are pressed from now on.
    #[serde(default)]
    pub buttons: Vec<ButtonName>,
    /// Steps of the wheel; positive away from the user.
    #[serde(default)]
    pub wheel: i16,
}

/// The buttons of a mouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ButtonName {
    /// The left button.
    Left,
    /// The right button.
    Right,
    /// The middle button.
    Middle,
}

impl Display {
    /// Offers the devices of `config` to the guest, and lets viewers connect. `None`: there are no
    /// devices.
    ///
    /// # Errors
    /// The host has too few file descriptors, threads or memory.
    pub fn start(
        config: &DisplayConfig,
        vnc: Option<Vnc>,
        machine: &mut Machine,
        bus: &VmBus,
    ) -> Result<Option<Self>, Box<dyn std::error::Error>> {
        if config.mode == DisplayMode::None {
            return Ok(None);
        }
        // One thread: these devices have little to do.
        let workers = WorkerOptions::default().shared_loop(SharedLoop::new("display")?);
        let memory = Vram(machine.window_memory(VIDEO_MEMORY_BYTES)?);
        let (input, keyboard, mouse) = Input::new(&workers)?;
        let options = VideoOptions { resolution: config.resolution, workers };
        let video = VideoDevice::new(options, Arc::new(memory))?;
        let server =
            DisplayServer::new(video.screen().clone(), input.clone(), DisplayOptions::default())?;
        bus.offer(Box::new(video.clone()))?;
        bus.offer(Box::new(keyboard))?;
        bus.offer(Box::new(mouse))?;
        if let Some(vnc) = &vnc {
            vnc.serve(&server)?;
        }
        Ok(Some(Self { video, input, server, _vnc: vnc }))
    }

    /// Returns the hook for resets of the guest. It must run after the bus's.
    pub fn reset_hook(&self) -> Box<dyn FnMut() + Send> {
        let video = self.video.clone();
        Box::new(move || video.reset())
    }

    /// Returns the screen, for display servers.
    pub fn screen(&self) -> &Screen {
        self.video.screen()
    }

    /// Returns the keyboard and the mouse, for display servers.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// Returns the display server, for viewers that another server has authenticated.
    pub fn server(&self) -> &DisplayServer {
        &self.server
    }

    /// Writes the picture to a PNG file, which is created or replaced.
    ///
    /// # Errors
    /// The guest shows no picture, or the file cannot be written.
    pub fn screenshot(&self, path: &Path) -> Result<ScreenSize, String> {
        let frame = self.screen().frame().ok_or(
            "the guest shows no picture: its video driver has not started, or has stopped",
        )?;
        png::write(&frame, path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(ScreenSize { width: frame.mode().width(), height: frame.mode().height() })
    }

    /// Presses and releases combinations of keys.
    ///
    /// # Errors
    /// A name is unknown, or the guest takes no keys.
    pub fn send_keys(&self, chords: &str) -> Result<(), String> {
        let events = keys::chords(chords).map_err(|error| error.to_string())?;
        self.input.keys(&events).map_err(|error| keyboard_error(&error))
    }

    /// Types a text on a US keyboard.
    ///
    /// # Errors
    /// A character has no key, or the guest takes no keys.
    pub fn type_text(&self, text: &str) -> Result<(), String> {
        let events = keys::type_text(text).map_err(|error| error.to_string())?;
        self.input.keys(&events).map_err(|error| keyboard_error(&error))
    }

    /// Moves the pointer.
    ///
    /// # Errors
    /// The guest shows no picture, or takes no pointer.
    pub fn point(&self, request: &PointerRequest) -> Result<(), String> {
        let frame = self.screen().frame().ok_or("the guest shows no picture to point at")?;
        let mode = frame.mode();
        let buttons = request.buttons.iter().map(|button| match button {
            ButtonName::Left => Buttons::LEFT,
            ButtonName::Right => Buttons::RIGHT,
            ButtonName::Middle => Buttons::MIDDLE,
        });
        let report = Report {
            buttons: buttons.collect(),
            x: coordinate(request.x, mode.width()),
            y: coordinate(request.y, mode.height()),
            wheel: request.wheel,
        };
        self.input.pointer(report).map_err(|error| format!("the mouse: {error}"))
    }

    /// Returns the display's part of the machine's report.
    pub fn report(&self) -> DisplayReport {
        DisplayReport::new(&self.video, &self.input, self.server.report())
    }
}

fn keyboard_error(error: &InputError) -> String {
    format!("the keyboard: {error}")
}
