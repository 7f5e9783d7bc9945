//! Programs that run in the guest. A host starts one, then asks again and again whether it has ended.

use super::{Call, Result};
use crate::base64::Decoder;
use crate::error::Fault;
use crate::guest::{Capture, Captured, End, Guest, Program, StartError, Stream};
use crate::packed;

/// The modes of `GuestExecCaptureOutput`.
const MODES: [&str; 5] = ["none", "stdout", "stderr", "separated", "merged"];

/// `guest-exec`: `{"path": str, "arg"?: [str], "env"?: [str], "input-data"?: str, "capture-output"?:
/// GuestExecCaptureOutput}` → `GuestExec`
pub(super) fn exec<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    let path = call.string("path");
    let arguments = call.optional_strings("arg").unwrap_or_default();
    let environment = call.optional_strings("env");
    let text = call.optional_string("input-data");
    let capture = capture(call);
    call.no_more_arguments()?;
    let input = text.and_then(|text| Decoder::new(text.to_bytes()));
    if text.is_some() && input.is_none() {
        return Err(call.fail(Fault::Base64, &[]));
    }

    match call.guest.start(&Program { path, arguments, environment, input, capture }) {
        Ok(pid) => {
            call.reply.number(packed!("{\"pid\":#}"), pid.into());
            Ok(())
        }
        Err(StartError::Process(errno)) => Err(call.fail_by(Fault::Job, errno)),
        Err(StartError::Program(errno)) => {
            let failed = call.fail(Fault::Exec, path.to_bytes());
            call.error.number = u32::from(errno.0);
            Err(failed)
        }
    }
}

/// The argument `capture-output`: `GuestExecCaptureOutput`, a mode or yes or no.
fn capture<G>(call: &mut Call<'_, G>) -> Capture {
    const NAME: &str = "capture-output";
    let Some(value) = call.arguments.value(NAME) else {
        return Capture::default();
    };
    let mode = match value.first() {
        Some(b't') => 3,
        Some(b'f') => 0,
        Some(b'"') => call.word(NAME, value, &MODES),
        // `null` is none of the two.
        _ => {
            call.not_an(NAME, b"GuestExecCaptureOutput");
            0
        }
    };
    Capture { output: matches!(mode, 1 | 3 | 4), errors: matches!(mode, 2 | 3), merged: mode == 4 }
}

/// `guest-exec-status`: `{"pid": int}` → `GuestExecStatus`
///
/// Once it has told the end of a process it has forgotten it.
pub(super) fn status<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    let pid = call.integer("pid");
    call.no_more_arguments()?;
    let Some(process) = call.guest.process(pid) else {
        let shown = call.value("pid");
        return Err(call.fail(Fault::NoProcess, shown));
    };

    let reply = &mut call.reply;
    reply.number(packed!("{\"exited\":!"), process.end.is_some().into());
    if let Some(end) = process.end {
        let (form, number) = match end {
            End::Exited(status) => (packed!("\"exitcode\":#"), status),
            End::Killed(signal) => (packed!("\"signal\":#"), signal),
        };
        reply.number(form, number.into());
        let [out, errors] = process.captured;
        data(call, pid, Stream::Output, out, packed!("\"out-data\":"));
        data(call, pid, Stream::Errors, errors, packed!("\"err-data\":"));
        truncated(call, out, packed!("\"out-truncated\":!"));
        truncated(call, errors, packed!("\"err-truncated\":!"));
        call.guest.forget(pid);
    }
    call.reply.known(b"}");
    Ok(())
}

/// A member with what was kept of a stream, if there is anything.
#[inline(never)]
fn data<G: Guest>(call: &mut Call<'_, G>, pid: i64, stream: Stream, captured: Captured, form: &[u8]) {
    if captured.bytes == 0 {
        return;
    }
    let (guest, mut at) = (&mut *call.guest, 0usize);
    call.reply.known(form);
    call.reply.open_string();
    call.reply.part_base64(captured.bytes, &mut |buffer| {
        let bytes = guest.output(pid, stream, at, buffer);
        at = at.wrapping_add(bytes);
        bytes
    });
    call.reply.close_string();
}

/// A member that tells whether there was more, beside such data.
#[inline(never)]
fn truncated<G>(call: &mut Call<'_, G>, captured: Captured, form: &[u8]) {
    if captured.bytes > 0 {
        call.reply.number(form, captured.truncated.into());
    }
}
