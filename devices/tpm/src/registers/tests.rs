use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::*;

fn read(registers: &Registers, offset: u64) -> u32 {
    let mut data = [0; 4];
    registers.read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn write(registers: &mut Registers, offset: u64, value: u32) -> Option<Action> {
    registers.write(offset, &value.to_le_bytes())
}

/// A command without parameters: TPM_ST_NO_SESSIONS, its size, and its code.
fn command(code: u32) -> Vec<u8> {
    [&[0x80, 0x01, 0, 0, 0, 10][..], &code.to_be_bytes()].concat()
}

/// Returns registers with the locality requested, a command in the buffer and the TPM ready.
fn ready() -> Registers {
    let mut registers = Registers::default();
    assert_eq!(write(&mut registers, LOC_CTRL, 1), None);
    assert_eq!(write(&mut registers, CTRL_REQ, 1), None);
    assert_eq!(registers.write(BUFFER as u64, &command(0x144)), None);
    registers
}

#[test]
fn test_registers_after_power_on_are_those_of_the_specification() {
    let registers = Registers::default();
    let expected = [
        (0x00, 0x81),
        (0x08, 0),
        (0x0C, 0),
        (0x30, 0x0002_5811),
        (0x34, 0x1014),
        (0x40, 0),
        (0x44, 2),
        (0x48, 0),
        (0x4C, 0),
        (0x58, 3968),
        (0x5C, 0xFED4_0080),
        (0x60, 0),
        (0x64, 3968),
        (0x68, 0xFED4_0080),
        (0x6C, 0),
        (0x80, 0),
        (0xFFC, 0),
    ];
    for (offset, value) in expected {
        assert_eq!(read(&registers, offset), value, "{offset:#x}");
    }
}

#[test]
fn test_locality_requested_is_granted_until_it_is_relinquished() {
    let mut registers = Registers::default();
    let _ = write(&mut registers, LOC_CTRL, 1);
    assert_eq!((read(&registers, LOC_STATE), read(&registers, LOC_STS)), (0x83, 1));
    let _ = write(&mut registers, LOC_CTRL, 2);
    assert_eq!((read(&registers, LOC_STATE), read(&registers, LOC_STS)), (0x81, 0));
}

#[test]
fn test_established_flag_is_active_low_and_reset_by_the_locality_that_is_granted() {
    let mut registers = Registers::default();
    registers.set_established(true);
    assert_eq!(read(&registers, LOC_STATE), 0x80);
    assert_eq!(write(&mut registers, LOC_CTRL, 8), None, "without the locality");
    let _ = write(&mut registers, LOC_CTRL, 1);
    assert_eq!(write(&mut registers, LOC_CTRL, 8), Some(Action::ResetEstablished));
    registers.set_established(false);
    assert_eq!(read(&registers, LOC_STATE), 0x83);
}

#[test]
fn test_command_ready_and_go_idle_change_the_idle_bit_and_are_done_immediately() {
    let mut registers = Registers::default();
    let _ = write(&mut registers, CTRL_REQ, 1);
    assert_eq!((read(&registers, CTRL_REQ), read(&registers, CTRL_STS)), (0, 0));
    let _ = write(&mut registers, CTRL_REQ, 2);
    assert_eq!((read(&registers, CTRL_REQ), read(&registers, CTRL_STS)), (0, 2));
}

#[test]
fn test_start_runs_the_command_of_the_buffer_until_its_response_is_there() {
    let mut registers = ready();
    assert_eq!(write(&mut registers, CTRL_START, 1), Some(Action::Run(command(0x144))));
    assert_eq!(read(&registers, CTRL_START), 1);
    assert_eq!(write(&mut registers, CTRL_START, 1), None, "one command at a time");
    assert_eq!(write(&mut registers, BUFFER as u64, 7), None);
    registers.complete(&command(0));
    let mut response = [0; HEADER_SIZE];
    registers.read(BUFFER as u64, &mut response);
    assert_eq!((read(&registers, CTRL_START), response.to_vec()), (0, command(0)));
    registers.complete(&command(1));
    registers.read(BUFFER as u64, &mut response);
    assert_eq!(response.to_vec(), command(0), "no command runs");
}

#[test]
fn test_start_without_a_locality_does_nothing() {
    let mut registers = Registers::default();
    let _ = registers.write(BUFFER as u64, &command(0x144));
    assert_eq!(write(&mut registers, CTRL_START, 1), None);
    assert_eq!(read(&registers, CTRL_START), 0);
}

#[test]
fn test_start_of_a_command_of_an_impossible_size_is_answered_by_the_device() {
    for size in [0, 9, 3969, u32::MAX] {
        let mut registers = ready();
        let _ = registers.write(BUFFER as u64 + 2, &size.to_be_bytes());
        assert_eq!(write(&mut registers, CTRL_START, 1), None, "{size}");
        let mut code = [0; 4];
        registers.read(BUFFER as u64 + 6, &mut code);
        assert_eq!((read(&registers, CTRL_START), u32::from_be_bytes(code)), (0, 0x142), "{size}");
    }
    let mut registers = ready();
    let _ = registers.write(BUFFER as u64 + 2, &3968_u32.to_be_bytes());
    let Some(Action::Run(longest)) = write(&mut registers, CTRL_START, 1) else {
        panic!("the longest command runs");
    };
    assert_eq!(longest.len(), 3968);
}

#[test]
fn test_cancel_is_passed_on_once_and_only_while_a_command_runs() {
    let mut registers = ready();
    assert_eq!(write(&mut registers, CTRL_CANCEL, 1), None);
    assert_eq!(read(&registers, CTRL_CANCEL), 1);
    let _ = write(&mut registers, CTRL_CANCEL, 0);
    let _ = write(&mut registers, CTRL_START, 1);
    assert_eq!(write(&mut registers, CTRL_CANCEL, 1), Some(Action::Cancel));
    assert_eq!(write(&mut registers, CTRL_CANCEL, 1), None);
}

#[test]
fn test_failed_tpm_shows_the_error_bit_and_takes_no_command_also_after_a_reset() {
    let mut registers = ready();
    let _ = write(&mut registers, CTRL_START, 1);
    registers.fail();
    assert_eq!((read(&registers, CTRL_START), read(&registers, CTRL_STS) & 1), (0, 1));
    registers.reset();
    let _ = write(&mut registers, LOC_CTRL, 1);
    assert_eq!(write(&mut registers, CTRL_START, 1), None);
    assert_eq!(read(&registers, CTRL_STS), 3);
}

#[test]
fn test_response_that_is_too_long_fails_the_tpm() {
    let mut registers = ready();
    let _ = write(&mut registers, CTRL_START, 1);
    registers.complete(&[0; BUFFER_SIZE + 1]);
    assert!(registers.has_failed() && !registers.is_running());
}

#[test]
fn test_access_of_any_width_reads_and_writes_the_same_bytes() {
    let mut registers = ready();
    let mut wide = [0; 8];
    registers.read(COMMAND_SIZE, &mut wide);
    assert_eq!(wide, [0x80, 0x0F, 0, 0, 0x80, 0, 0xD4, 0xFE]);
    let mut byte = [0];
    registers.read(COMMAND_ADDRESS + 3, &mut byte);
    assert_eq!(byte, [0xFE]);
    assert!(matches!(registers.write(CTRL_START, &[1]), Some(Action::Run(_))));
    let mut past = [7; 8];
    registers.read(SIZE - 4, &mut past);
    assert_eq!(past, [0; 8]);
    assert_eq!(registers.write(SIZE - 4, &[1; 8]), None);
}

proptest! {
    #[test]
    fn test_registers_given_any_accesses_neither_panic_nor_run_two_commands(
        steps in vec((any::<u8>(), 0..SIZE + 16, vec(any::<u8>(), 0..9)), 0..300),
    ) {
        let mut registers = Registers::default();
        let mut running = false;
        for (kind, offset, data) in steps {
            // Half of the writes hit a register that does something.
            let hot = [LOC_CTRL, CTRL_REQ, CTRL_CANCEL, CTRL_START, CTRL_START, BUFFER as u64 + 2];
            let offset = if kind & 1 == 0 { hot[usize::from(kind >> 4) % hot.len()] } else { offset };
            match kind & 0xE {
                0 => {
                    registers.complete(&data);
                    running = false;
                }
                2 if kind == 0xF2 => {
                    registers.reset();
                    running = false;
                }
                4 => registers.read(offset, &mut [0; 8]),
                _ => if let Some(Action::Run(command)) = registers.write(offset, &data) {
                    prop_assert!(!running && (HEADER_SIZE..=BUFFER_SIZE).contains(&command.len()));
                    running = true;
                }
            }
            prop_assert_eq!(registers.is_running(), running);
        }
    }
}
