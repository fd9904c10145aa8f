//! The keyboard as the firmware uses it (`EFI_SIMPLE_TEXT_INPUT_PROTOCOL` and
//! `EFI_SIMPLE_TEXT_INPUT_EX_PROTOCOL`, UEFI specification sections 12.2 and 12.3).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ffi::c_void;
use core::ptr;

use uefi_raw::protocol::console::{
    InputKey, KeyData, KeyNotifyFn, KeyShiftState, KeyState, KeyToggleState,
    SimpleTextInputExProtocol, SimpleTextInputProtocol,
};
use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::{Boolean, Event, Guid, Handle, Status, guid};
use uefi_vmbus::{Decoder, DisplayError, KEYBOARD, Key, Keyboard, device_path};
use vmbus_client::Client;

use super::boot::BootServices;
use super::platform::UefiPlatform;
use super::with_driver;

/// Marks a keyboard that the firmware's console reads, without an entry in its variables.
const CONSOLE_IN_DEVICE: Guid = guid!("d3b36f2b-d551-11d4-9a46-0090273fc14d");

/// Keys that wait for a reader. Later ones are lost.
const MAX_KEYS: usize = 64;

/// Registered notifications. A program that registers more gets an error.
const MAX_NOTIFICATIONS: usize = 64;

/// The keyboard.
pub(super) struct Input {
    keyboard: Keyboard,
    instance: vmbus_protocol::Guid,
    decoder: Decoder,
    keys: VecDeque<Key>,
    notifications: Vec<Notification>,
    next_number: usize,
}

/// A function that is called for a key.
struct Notification {
    number: usize,
    key: KeyData,
    function: KeyNotifyFn,
}

/// A function to call with a key, without the driver.
pub(super) type Call = (KeyNotifyFn, KeyData);

impl Input {
    /// Opens the keyboard.
    pub(super) fn open(
        client: &mut Client<UefiPlatform>,
        instance: vmbus_protocol::Guid,
    ) -> Result<Self, DisplayError> {
        let keyboard = Keyboard::open(client, instance)?;
        Ok(Self {
            keyboard,
            instance,
            decoder: Decoder::default(),
            keys: VecDeque::new(),
            notifications: Vec::new(),
            next_number: 1,
        })
    }

    /// Takes the events that the host has sent. Returns the notifications for them.
    pub(super) fn poll(&mut self, client: &mut Client<UefiPlatform>) -> Vec<Call> {
        let mut calls = Vec::new();
        // A host that sends without an end must not hold up the firmware.
        for _ in 0..MAX_KEYS {
            let Some(event) = self.keyboard.next_event(client) else { break };
            let Some(key) = self.decoder.decode(event) else { continue };
            let data = data(key);
            let registered = self.notifications.iter().filter(|one| matches(&one.key, &data));
            calls.extend(registered.map(|one| (one.function, data)));
            if self.keys.len() < MAX_KEYS {
                self.keys.push_back(key);
            }
        }
        calls
    }

    fn register(&mut self, key: KeyData, function: KeyNotifyFn) -> Option<usize> {
        let known = |one: &&Notification| one.key == key && ptr::fn_addr_eq(one.function, function);
        if let Some(known) = self.notifications.iter().find(known) {
            return Some(known.number);
        }
        if self.notifications.len() == MAX_NOTIFICATIONS {
            return None;
        }
        let number = self.next_number;
        self.next_number += 1;
        self.notifications.push(Notification { number, key, function });
        Some(number)
    }
}

fn data(key: Key) -> KeyData {
    KeyData {
        key: InputKey { scan_code: key.scan_code, unicode_char: key.character },
        key_state: KeyState {
            key_shift_state: KeyShiftState::from_bits_retain(key.shift),
            key_toggle_state: KeyToggleState::from_bits_retain(key.toggle),
        },
    }
}

/// Returns whether a registered key is this one. A state of 0 is any state.
fn matches(registered: &KeyData, key: &KeyData) -> bool {
    let (wanted, state) = (registered.key_state, key.key_state);
    registered.key == key.key
        && (wanted.key_shift_state.is_empty() || wanted.key_shift_state == state.key_shift_state)
        && (wanted.key_toggle_state.is_empty() || wanted.key_toggle_state == state.key_toggle_state)
}

/// Publishes the keyboard.
pub(super) fn publish(boot: BootServices, input: &Input) -> Status {
    let mut events: [Event; 2] = [ptr::null_mut(); 2];
    for event in &mut events {
        match boot.at_wait(is_waiting) {
            Ok(created) => *event = created,
            Err(status) => return status,
        }
    }
    let [wait_for_key, wait_for_key_ex] = events;
    let simple =
        Box::leak(Box::new(SimpleTextInputProtocol { reset, read_key_stroke, wait_for_key }));
    let extended = Box::leak(Box::new(SimpleTextInputExProtocol {
        reset: reset_ex,
        read_key_stroke_ex,
        wait_for_key_ex,
        set_state,
        register_key_notify,
        unregister_key_notify,
    }));
    let path = Box::leak(device_path::channel(KEYBOARD, input.instance).into_boxed_slice());
    let interfaces = [
        (&DevicePathProtocol::GUID, path.as_ptr().cast::<c_void>()),
        (&SimpleTextInputProtocol::GUID, ptr::from_mut(simple).cast_const().cast()),
        (&SimpleTextInputExProtocol::GUID, ptr::from_mut(extended).cast_const().cast()),
        (&CONSOLE_IN_DEVICE, ptr::null()),
    ];
    let mut handle: Handle = ptr::null_mut();
    for (guid, interface) in interfaces {
        // SAFETY: a device path with its end node, two instances, and a mark without an interface;
        // all exist forever.
        let status = unsafe { boot.install(&mut handle, guid, interface) };
        if status != Status::SUCCESS {
            return status;
        }
    }
    Status::SUCCESS
}

/// Runs `job` with the keyboard.
fn with_input(job: impl FnOnce(&mut Input) -> Status) -> Status {
    with_driver(|driver| match &mut driver.input {
        Some(input) => job(input),
        None => Status::DEVICE_ERROR,
    })
}

/// Signals an event that a program waits for, if there is a key.
unsafe extern "efiapi" fn is_waiting(event: Event, _: *mut c_void) {
    with_driver(|driver| {
        if driver.input.as_ref().is_some_and(|input| !input.keys.is_empty()) {
            driver.boot.signal(event);
        }
        Status::SUCCESS
    });
}

unsafe extern "efiapi" fn reset(_: *mut SimpleTextInputProtocol, _: Boolean) -> Status {
    with_input(Input::reset)
}

unsafe extern "efiapi" fn reset_ex(_: *mut SimpleTextInputExProtocol, _: Boolean) -> Status {
    with_input(Input::reset)
}

impl Input {
    fn reset(&mut self) -> Status {
        self.keys.clear();
        Status::SUCCESS
    }
}

unsafe extern "efiapi" fn read_key_stroke(
    _: *mut SimpleTextInputProtocol,
    to: *mut InputKey,
) -> Status {
    if to.is_null() {
        return Status::INVALID_PARAMETER;
    }
    with_input(|input| {
        let Some(key) = input.keys.pop_front() else { return Status::NOT_READY };
        let (scan_code, unicode_char) = key.plain();
        // SAFETY: the caller passes its own variable.
        unsafe { to.write(InputKey { scan_code, unicode_char }) };
        Status::SUCCESS
    })
}

unsafe extern "efiapi" fn read_key_stroke_ex(
    _: *mut SimpleTextInputExProtocol,
    to: *mut KeyData,
) -> Status {
    if to.is_null() {
        return Status::INVALID_PARAMETER;
    }
    with_input(|input| {
        let Some(key) = input.keys.pop_front() else { return Status::NOT_READY };
        // SAFETY: the caller passes its own variable.
        unsafe { to.write(data(key)) };
        Status::SUCCESS
    })
}

unsafe extern "efiapi" fn set_state(
    _: *mut SimpleTextInputExProtocol,
    state: *const KeyToggleState,
) -> Status {
    // SAFETY: the caller passes its own variable, or none.
    let Some(state) = (unsafe { state.as_ref() }) else { return Status::INVALID_PARAMETER };
    if !state.contains(KeyToggleState::VALID) {
        return Status::UNSUPPORTED;
    }
    with_input(|input| {
        input.decoder.set_locks(state.bits());
        Status::SUCCESS
    })
}

unsafe extern "efiapi" fn register_key_notify(
    _: *mut SimpleTextInputExProtocol,
    key: *const KeyData,
    function: KeyNotifyFn,
    handle: *mut *mut c_void,
) -> Status {
    if key.is_null() || handle.is_null() {
        return Status::INVALID_PARAMETER;
    }
    with_input(|input| {
        // SAFETY: the caller passes its own variables.
        unsafe {
            let Some(number) = input.register(*key, function) else {
                return Status::OUT_OF_RESOURCES;
            };
            *handle = ptr::without_provenance_mut(number);
        }
        Status::SUCCESS
    })
}

unsafe extern "efiapi" fn unregister_key_notify(
    _: *mut SimpleTextInputExProtocol,
    handle: *mut c_void,
) -> Status {
    with_input(|input| {
        let before = input.notifications.len();
        input.notifications.retain(|one| one.number != handle.addr());
        if input.notifications.len() < before { Status::SUCCESS } else { Status::INVALID_PARAMETER }
    })
}
