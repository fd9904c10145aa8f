//! The physical presence interface of a TPM: the part of its device by which a system asks the
//! firmware of the next start for an operation, such as clearing the TPM (TCG Physical Presence
//! Interface Specification 1.30 section 2; firmware-windows section D7.3).
//!
//! The methods only read and write the page of the interface. Firmware fills its first 256 bytes
//! with what it does for each operation, executes the request at its start, and leaves a response.

use acpi_tables::Aml;
use acpi_tables::aml::{
    Add, And, Arg, BufferData, DeRefOf, Equal, Field, FieldAccessType, FieldEntry, FieldLockRule,
    FieldUpdateRule, GreaterEqual, If, Index, Local, Method, MethodCall, Name, ONE, OpRegion,
    OpRegionSpace, Package, Path, Return, Store, Uuid, ZERO,
};

use super::dsdt::Raw;
use crate::memory::AddressRange;

const INTERFACE: &str = "3DDDFAA6-361B-4EB4-A424-8D10089D1653";
const VERSION: &str = "1.3";

/// Names of the results of `_DSM`, and of the method that reads an operation's permission.
const RESULT_OF_TWO: &str = "PPK2";
const RESULT_OF_THREE: &str = "PPK3";
const PERMISSION_OF: &str = "PPFN";

/// Number of operations, each with a byte of the page.
const OPERATIONS: u16 = 0x100;
/// The bits of that byte that say who may ask for the operation, and two of their values.
const PERMISSION: u8 = 7;
const NOT_IMPLEMENTED: u8 = 0;
const BLOCKED: u8 = 2;

/// Bytes of the page that the methods use.
const PAGE_BYTES: u16 = 0x115;

/// Answers of the methods.
const UNSUPPORTED: u8 = 1;
const BLOCKED_BY_FIRMWARE: u8 = 3;
const LANGUAGE_NOT_IMPLEMENTED: u8 = 3;
const REBOOT: u8 = 2;

/// Writes the fields, a method that reads an operation's permission, and `_DSM`.
pub(super) fn interface(code: &mut Vec<u8>, page: AddressRange) {
    fields(code, page);
    permission(code, page);
    // Results of `_DSM`. Windows takes no package that a method makes of fields.
    Name::new(RESULT_OF_TWO.into(), &Package::new(vec![&ZERO, &ZERO])).to_aml_bytes(code);
    Name::new(RESULT_OF_THREE.into(), &Package::new(vec![&ZERO, &ZERO, &ZERO])).to_aml_bytes(code);
    let ours = when(&Arg(0), &Uuid::new(INTERFACE), vec![&functions()]);
    // Another interface has no functions.
    let none = BufferData::new(vec![0]);
    let end = Return::new(&none);
    Method::new("_DSM".into(), 4, true, vec![&ours, &end]).to_aml_bytes(code);
}

/// Writes the fields of the page, which are packed: whether firmware has prepared it (8 bits), an
/// unused word, the response, the request, its parameter, and the last request.
fn fields(code: &mut Vec<u8>, page: AddressRange) {
    let (start, len) = (page.start as u32, PAGE_BYTES);
    OpRegion::new("PPRG".into(), OpRegionSpace::SystemMemory, &start, &len).to_aml_bytes(code);
    Field::new(
        "PPRG".into(),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::Preserve,
        vec![
            FieldEntry::Reserved(usize::from(OPERATIONS) * 8),
            FieldEntry::Named(*b"PPIN", 8),
            FieldEntry::Named(*b"PPIP", 32),
            FieldEntry::Named(*b"PPRP", 32),
            FieldEntry::Named(*b"PPRQ", 32),
            FieldEntry::Named(*b"PPRM", 32),
            FieldEntry::Named(*b"LPPR", 32),
        ],
    )
    .to_aml_bytes(code);
}

/// Writes the method `PPFN(operation)`. Its region is at the operation's byte, as Windows does not
/// take an element out of a field that is a buffer.
fn permission(code: &mut Vec<u8>, page: AddressRange) {
    let (start, count) = (page.start as u32, OPERATIONS);
    let is_unknown = GreaterEqual::new(&Arg(0), &count);
    let zero = Return::new(&ZERO);
    let unknown = If::new(&is_unknown, vec![&zero]);
    let address = Add::new(&ZERO, &start, &Arg(0));
    let region = OpRegion::new("PPRF".into(), OpRegionSpace::SystemMemory, &address, &ONE);
    let field = Field::new(
        "PPRF".into(),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::Preserve,
        vec![FieldEntry::Named(*b"PPFF", 8)],
    );
    let value = Path::new("PPFF");
    let masked = And::new(&ZERO, &value, &PERMISSION);
    let end = Return::new(&masked);
    Method::new(PERMISSION_OF.into(), 1, true, vec![&unknown, &region, &field, &end])
        .to_aml_bytes(code);
}

/// Returns the functions of `_DSM`: Arg1 is the revision, Arg2 the function, Arg3 its arguments.
fn functions() -> Raw {
    let [request, parameter] = ["PPRQ", "PPRM"].map(Path::new);
    let [last_request, response] = ["LPPR", "PPRP"].map(Path::new);
    let operation = Local(0);
    let permission = Local(1);
    let success = Raw::of(&Return::new(&ZERO));
    let take = Raw::of(&Store::new(&operation, &argument(&ZERO)));
    let call = MethodCall::new(PERMISSION_OF.into(), vec![&operation]);
    let ask = Store::new(&permission, &call);
    let refuse = |of: u8, answer: u8| when(&permission, &of, vec![&Return::new(&answer)]);
    let missing = refuse(NOT_IMPLEMENTED, UNSUPPORTED);
    let blocked = refuse(BLOCKED, BLOCKED_BY_FIRMWARE);
    let submit = Store::new(&request, &operation);
    let clear_parameter = Raw::of(&Store::new(&parameter, &ZERO));
    let has_parameter =
        when(&Arg(1), &2_u8, vec![&Raw::of(&Store::new(&parameter, &argument(&ONE)))]);
    let pending = [set(RESULT_OF_THREE, 1, &request), set(RESULT_OF_THREE, 2, &parameter)];
    let answer = [set(RESULT_OF_THREE, 1, &last_request), set(RESULT_OF_THREE, 2, &response)];
    let three = Path::new(RESULT_OF_THREE);
    let result = Return::new(&three);

    let mut code = Vec::new();
    let mut function = |number: u8, body: Vec<&dyn Aml>| {
        when(&Arg(2), &number, body).to_aml_bytes(&mut code);
    };
    // A bit for each function.
    function(0, vec![&Return::new(&BufferData::new(vec![0xFF, 1]))]);
    function(1, vec![&Return::new(&VERSION)]);
    function(2, vec![&take, &ask, &missing, &submit, &clear_parameter, &success]);
    function(3, vec![&pending_of_revision_1(&request), &pending[0], &pending[1], &result]);
    function(4, vec![&Return::new(&REBOOT)]);
    function(5, vec![&answer[0], &answer[1], &result]);
    function(6, vec![&Return::new(&LANGUAGE_NOT_IMPLEMENTED)]);
    function(
        7,
        vec![&take, &ask, &missing, &blocked, &submit, &clear_parameter, &has_parameter, &success],
    );
    function(8, vec![&take, &ask, &Return::new(&permission)]);
    Raw(code)
}

/// Function 3 of revision 1, which knows no parameter.
fn pending_of_revision_1(request: &Path) -> Raw {
    let two = Path::new(RESULT_OF_TWO);
    when(&Arg(1), &ONE, vec![&set(RESULT_OF_TWO, 1, request), &Return::new(&two)])
}

/// Returns the argument with this index in the package of arguments.
fn argument(index: &dyn Aml) -> Raw {
    Raw::of(&DeRefOf::new(&Index::new(&ZERO, &Arg(3), index)))
}

/// Returns the assignment of `value` to an element of a package. Element 0, the result of the
/// function itself, stays 0.
fn set(package: &str, index: u8, value: &dyn Aml) -> Raw {
    let package = Path::new(package);
    let element = Index::new(&ZERO, &package, &index);
    Raw::of(&Store::new(&element, value))
}

fn when(left: &dyn Aml, right: &dyn Aml, body: Vec<&dyn Aml>) -> Raw {
    Raw::of(&If::new(&Equal::new(left, right), body))
}
