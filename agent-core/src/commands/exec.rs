//! Programs that run in the guest. A host starts one, then asks again and again whether it has ended.

use super::{Call, Result};
use crate::base64::Decoder;
use crate::error::Fault;
use crate::guest::{Capture, End, Guest, Program, StartError};

/// The words for [`Capture`], in its order.
const MODES: [&str; 5] = ["none", "stdout", "stderr", "separated", "merged"];
const CAPTURES: [Capture; 5] =
    [Capture::Nothing, Capture::Output, Capture::Errors, Capture::Separated, Capture::Merged];

/// `guest-exec`: `{"path": str, "arg"?: [str], "env"?: [str], "input-data"?: str, "capture-output"?:
/// GuestExecCaptureOutput}` → `GuestExec`
pub(super) fn exec<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    let path = call.string("path")?;
    let arguments = call.optional_strings("arg")?;
    let environment = call.optional_strings("env")?;
    let text = call.optional_string("input-data")?;
    let capture = capture(call)?;
    call.no_more_arguments()?;
    let input = text.and_then(|text| Decoder::new(text.to_bytes()));
    if text.is_some() && input.is_none() {
        return Err(call.fail(Fault::Base64, &[]));
    }

    match call.guest.start(&Program { path, arguments, environment, input, capture }) {
        Ok(pid) => {
            call.reply.open_object();
            call.reply.key("pid");
            call.reply.integer(i64::from(pid));
            call.reply.close_object();
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
fn capture<G>(call: &mut Call<'_, G>) -> Result<Capture> {
    const NAME: &str = "capture-output";
    let Some(value) = call.arguments.value(NAME) else {
        return Ok(Capture::Nothing);
    };
    match value.first() {
        Some(b't') => Ok(Capture::Separated),
        Some(b'f') => Ok(Capture::Nothing),
        Some(b'"') => {
            let mode = call.word(NAME, value, &MODES)?;
            let place = usize::try_from(mode).unwrap_or(0);
            Ok(CAPTURES.get(place).copied().unwrap_or(Capture::Nothing))
        }
        // `null` is none of the two.
        _ => Err(call.not_an(NAME, b"GuestExecCaptureOutput")),
    }
}

/// `guest-exec-status`: `{"pid": int}` → `GuestExecStatus`
///
/// Once it has told the end of a process it has forgotten it.
pub(super) fn status<G: Guest>(call: &mut Call<'_, G>) -> Result<()> {
    let pid = call.integer("pid")?;
    call.no_more_arguments()?;
    let Some(process) = call.guest.process(pid) else {
        let shown = call.value("pid")?;
        return Err(call.fail(Fault::NoProcess, shown));
    };

    let reply = &mut call.reply;
    reply.open_object();
    reply.key("exited");
    reply.boolean(process.end.is_some());
    if let Some(end) = process.end {
        let (name, number) = match end {
            End::Exited(status) => ("exitcode", status),
            End::Killed(signal) => ("signal", signal),
        };
        reply.key(name);
        reply.integer(i64::from(number));
        for ((stream, captured), name) in (0..).zip(process.captured).zip(["out-data", "err-data"]) {
            if captured.bytes > 0 {
                let mut at = 0usize;
                reply.key(name);
                reply.open_string();
                reply.part_base64(captured.bytes, &mut |buffer| {
                    let bytes = call.guest.output(pid, stream, at, buffer);
                    at = at.wrapping_add(bytes);
                    bytes
                });
                reply.close_string();
            }
        }
        for (captured, name) in process.captured.iter().zip(["out-truncated", "err-truncated"]) {
            if captured.bytes > 0 {
                reply.key(name);
                reply.boolean(captured.truncated);
            }
        }
        call.guest.forget(pid);
    }
    reply.close_object();
    Ok(())
}
