//! The driver in the firmware.

mod boot;
mod file_systems;
mod heap;
mod hyperv;
mod interrupt;
mod msr;
mod pass_thru;
mod pci;
mod platform;
mod recovery;
mod screen;
mod serial;
mod text_input;

use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::fmt;
use core::hint;
use core::panic::PanicInfo;
use core::time::Duration;

use uefi_raw::table::runtime::RuntimeServices;
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Event, Handle, Status};
use uefi_vmbus::{Address, Controller, KEYBOARD, StorageError, VIDEO};
use vmbus_client::{Client, ContactOptions, NEWEST_FIRST};
use vmbus_protocol::Guid;
use vmbus_protocol::guid::class;

use boot::BootServices;
use hyperv::Hypervisor;
use platform::UefiPlatform;
use screen::Screen;
use serial::say;
use text_input::Input;

/// The time between two looks at the keyboard, and between two messages about changed pixels.
const PERIOD: Duration = Duration::from_millis(20);

/// The driver's state. Empty before it has started, after the system has taken over, and while an
/// entry point is using it.
static DRIVER: Global = Global(UnsafeCell::new(None));

struct Global(UnsafeCell<Option<Driver>>);

// SAFETY: UEFI runs drivers on one processor, and all accesses are at the same raised priority, so
// that none interrupts another.
unsafe impl Sync for Global {}

struct Driver {
    boot: BootServices,
    client: Client<UefiPlatform>,
    disks: Vec<Disks>,
    screen: Option<Screen>,
    input: Option<Input>,
}

/// A controller and its logical units.
struct Disks {
    controller: Controller,
    addresses: Vec<Address>,
}

/// A controller for one call of the firmware.
struct Unit<'a> {
    boot: BootServices,
    client: &'a mut Client<UefiPlatform>,
    controller: &'a mut Controller,
    addresses: &'a mut Vec<Address>,
}

impl Unit<'_> {
    /// Searches the logical units again if the host has announced a change.
    fn refresh(&mut self) {
        self.client.poll();
        if self.controller.take_changed()
            && let Ok(found) = self.controller.scan(self.client)
        {
            *self.addresses = found;
        }
    }
}

/// Starts the driver.
///
/// # Safety
/// The firmware calls it once, with its system table.
#[unsafe(no_mangle)]
unsafe extern "efiapi" fn efi_main(image: Handle, table: *const SystemTable) -> Status {
    // SAFETY: the firmware's tables are valid until the system takes over, and then the driver has
    // ended.
    let (boot, runtime) = unsafe {
        let Some(table) = table.as_ref() else { return Status::INVALID_PARAMETER };
        match (table.boot_services.as_ref(), table.runtime_services.as_ref()) {
            (Some(boot), Some(runtime)) => (BootServices::new(boot), runtime),
            _ => return Status::INVALID_PARAMETER,
        }
    };
    boot.at_notify(|| start(boot, runtime, image))
}

fn start(boot: BootServices, runtime: &'static RuntimeServices, image: Handle) -> Status {
    if let Err(absent) = hyperv::detect() {
        say(format_args!("{absent}; nothing to do"));
        return Status::UNSUPPORTED;
    }
    if !heap::start(boot) {
        say(format_args!("no memory"));
        return Status::OUT_OF_RESOURCES;
    }
    let reports = recovery::start(boot, runtime, image);
    match start_bus(boot) {
        // The driver stays for its report: a machine without a disk has nothing on the bus.
        status if status != Status::SUCCESS && reports => Status::SUCCESS,
        status => status,
    }
}

/// Connects to the bus, and publishes its devices.
fn start_bus(boot: BootServices) -> Status {
    let driver = match Driver::connect(boot) {
        Ok(driver) => driver,
        Err(status) => return status,
    };
    // SAFETY: at the raised priority, see `Sync`.
    let driver = unsafe { (*DRIVER.0.get()).insert(driver) };
    if boot.at_exit(leave) != Status::SUCCESS {
        say(format_args!("the firmware does not announce the start of a system"));
        leave_now();
        return Status::OUT_OF_RESOURCES;
    }
    driver.publish();
    Status::SUCCESS
}

impl Driver {
    /// Connects to the bus and opens its devices. Leaves nothing behind if there are none.
    fn connect(boot: BootServices) -> Result<Self, Status> {
        let hypervisor = Hypervisor::start(boot).map_err(|absent| {
            say(format_args!("{absent}"));
            Status::UNSUPPORTED
        })?;
        let platform = UefiPlatform::new(boot, hypervisor);
        let options = ContactOptions { versions: NEWEST_FIRST, target_vp: hyperv::vp_index() };
        let client = Client::negotiate(platform, &options);
        let connected = client.and_then(|mut client| {
            client.request_offers()?;
            Ok(client)
        });
        let client = connected.map_err(|error| {
            say(format_args!("no connection to VMBus: {error}"));
            Status::DEVICE_ERROR
        })?;
        let mut driver = Self { boot, client, disks: Vec::new(), screen: None, input: None };
        driver.poll_channels();
        driver.open_controllers();
        driver.open_display();
        let units: usize = driver.disks.iter().map(|disks| disks.addresses.len()).sum();
        let (version, controllers) = (driver.client.version(), driver.disks.len());
        say(format_args!("VMBus {version}, {controllers} SCSI controllers, {units} units"));
        if controllers == 0 && driver.screen.is_none() && driver.input.is_none() {
            driver.unload();
            return Err(Status::NOT_FOUND);
        }
        Ok(driver)
    }

    fn open_controllers(&mut self) {
        let offers = self.client.offers();
        let controllers =
            offers.filter(|offer| offer.class == class::SCSI && offer.subchannel == 0);
        let instances: Vec<Guid> = controllers.map(|offer| offer.instance).collect();
        for instance in instances {
            match self.open_controller(instance) {
                Ok(disks) => self.disks.push(disks),
                Err(error) => say(format_args!("controller {instance}: {error}")),
            }
        }
    }

    /// Opens the screen and the keyboard, if the host offers them.
    fn open_display(&mut self) {
        let offer = |class| {
            let mut offers = self.client.offers();
            let offer = offers.find(|offer| offer.class == class && offer.subchannel == 0)?;
            Some((offer.instance, offer.mmio_megabytes))
        };
        let (video, keyboard) = (offer(VIDEO), offer(KEYBOARD));
        if let Some((instance, megabytes)) = video {
            let bytes = u64::from(megabytes) << 20;
            match Screen::open(&mut self.client, instance, bytes) {
                Ok(screen) if screen.is_visible() => self.screen = Some(screen),
                Ok(_) => say(format_args!("the host does not show video memory")),
                Err(error) => say(format_args!("video device: {error}")),
            }
        }
        if let Some((instance, _)) = keyboard {
            match Input::open(&mut self.client, instance) {
                Ok(input) => self.input = Some(input),
                Err(error) => say(format_args!("keyboard: {error}")),
            }
        }
    }

    /// Publishes the devices.
    fn publish(&self) {
        for (unit, disks) in self.disks.iter().enumerate() {
            let instance = disks.controller.instance();
            let status = pass_thru::publish(self.boot, unit, instance);
            report(status, format_args!("controller {instance}"));
        }
        if let Some(screen) = &self.screen {
            report(screen::publish(self.boot, screen), format_args!("the screen"));
        }
        if let Some(input) = &self.input {
            report(text_input::publish(self.boot, input), format_args!("the keyboard"));
        }
        if self.screen.is_some() || self.input.is_some() {
            report(self.boot.every(PERIOD, tick), format_args!("a timer"));
        }
    }

    /// Tells the platform which channels the host offers now.
    fn poll_channels(&self) {
        let relids = self.client.offers().map(|offer| offer.relid);
        let relids = relids.filter_map(|relid| u16::try_from(relid).ok()).collect();
        self.client.platform().poll_channels(relids);
    }

    fn open_controller(&mut self, instance: Guid) -> Result<Disks, StorageError> {
        let mut controller = Controller::open(&mut self.client, instance)?;
        let addresses = controller.scan(&mut self.client)?;
        Ok(Disks { controller, addresses })
    }

    /// Closes the channels and disconnects from bus and hypervisor.
    fn unload(self) {
        if let Err(error) = self.client.unload() {
            say(format_args!("VMBus was left without its confirmation: {error}"));
        }
    }
}

fn report(status: Status, what: fmt::Arguments<'_>) {
    if status != Status::SUCCESS {
        say(format_args!("{what} cannot be published: {status:?}"));
    }
}

/// Runs `job` with a controller. Fails if there is no such controller any more.
fn with_unit(number: usize, job: impl FnOnce(&mut Unit<'_>) -> Status) -> Status {
    with_driver(|driver| {
        let Some(disks) = driver.disks.get_mut(number) else { return Status::NOT_FOUND };
        job(&mut Unit {
            boot: driver.boot,
            client: &mut driver.client,
            controller: &mut disks.controller,
            addresses: &mut disks.addresses,
        })
    })
}

/// Runs `job` with the driver. Fails if it has ended.
fn with_driver(job: impl FnOnce(&mut Driver) -> Status) -> Status {
    let Some(boot) = boot_services() else { return Status::NOT_READY };
    boot.at_notify(|| {
        // SAFETY: at the raised priority, see `Sync`. `job` calls no code that enters here again.
        let Some(driver) = (unsafe { (*DRIVER.0.get()).as_mut() }) else {
            return Status::NOT_READY;
        };
        // A channel that the host has offered again is open after this, with another relid.
        if driver.client.poll() {
            driver.poll_channels();
        }
        job(driver)
    })
}

/// Takes keys, and tells the host of changed pixels.
unsafe extern "efiapi" fn tick(_: Event, _: *mut c_void) {
    let mut calls = Vec::new();
    with_driver(|driver| {
        if let Some(screen) = &mut driver.screen {
            screen.flush(&mut driver.client);
        }
        if let Some(input) = &mut driver.input {
            calls = input.poll(&mut driver.client);
        }
        Status::SUCCESS
    });
    for (function, key) in calls {
        // SAFETY: the firmware has registered the function. The driver is not in use here, so the
        // function may call it.
        let _ = unsafe { function(&raw const key) };
    }
}

/// Returns the boot services, while the driver uses them.
fn boot_services() -> Option<BootServices> {
    // SAFETY: the copy is short, and no entry point changes the driver's boot services.
    unsafe { (*DRIVER.0.get()).as_ref().map(|driver| driver.boot) }
}

/// The system takes over. The firmware calls it at the raised priority.
unsafe extern "efiapi" fn leave(_: Event, _: *mut c_void) {
    leave_now();
}

fn leave_now() {
    // SAFETY: at the raised priority, see `Sync`.
    let driver = unsafe { (*DRIVER.0.get()).take() };
    if let Some(mut driver) = driver {
        if let Some(screen) = &mut driver.screen {
            screen.flush(&mut driver.client);
        }
        driver.client.platform().leave();
        driver.unload();
    }
}

/// Stops the processor: a driver cannot fail alone.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say(format_args!("a bug stops the firmware: {info}"));
    loop {
        hint::spin_loop();
    }
}
