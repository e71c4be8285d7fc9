//! The seccomp agent, which answers for what SCMP_ACT_NOTIFY stands at (config-linux.md, Seccomp): it gets the listener of
//! the filter, with the container process state. Runs in: parent.

use std::os::fd::{AsFd, OwnedFd};

use rustix::net::SendFlags;
use rustix::process::{Pid, PidfdGetfdFlags};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::hooks::StateText;
use crate::open;
use crate::plan::Plan;
use crate::seccomp;
use crate::state::{OCI_VERSION, Status};
use crate::sync::Listener;

/// A connection to an agent. It is for one state, and the agent sees its end when it is dropped: the child has closed its
/// own copy before it has a listener.
pub(crate) struct Agent {
    socket: OwnedFd,
    plan: seccomp::Agent,
    /// Of an exec: the container's status and init.
    container: Option<(Status, Pid)>,
}

impl Agent {
    /// Connects, before anything is made: without an agent the container could not run.
    pub(crate) fn connect(plan: &Plan, container: Option<(Status, Pid)>) -> Result<Option<Self>> {
        let filter = plan.child.process.as_ref().and_then(|process| process.seccomp.as_ref());
        let Some(plan) = filter.and_then(|filter| filter.agent.as_ref()) else { return Ok(None) };
        Ok(Some(Self { socket: open::agent(plan)?, plan: plan.clone(), container }))
    }

    /// Sends the listener of the child's filter.
    pub(crate) fn give(self, listener: Listener, child: Pid, pidfd: &OwnedFd, state: &StateText) -> Result<()> {
        let listener = match listener {
            Listener::Sent(fd) => fd,
            Listener::Number(number) => {
                rustix::process::pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty()).map_err(|errno| {
                    let error = Error::at("linux.seccomp", "take the listener from the child").errno(errno);
                    error.hint("pidfd_getfd(2) is subject to kernel.yama.ptrace_scope and to outer seccomp filters")
                })?
            }
        };
        let (status, init) = self.container.unwrap_or((Status::Creating, child));
        let state = state.json(&status.to_string(), init.as_raw_nonzero().get());
        let text = container_process_state(child, &self.plan.metadata, &state);
        self.send(text.as_bytes(), &listener).map_err(|errno| {
            let text = format!("send the listener to the seccomp agent at {:?}", self.plan.path);
            Error::at(self.plan.field, text).errno(errno)
        })
    }

    /// The descriptor goes with the first bytes.
    fn send(&self, text: &[u8], listener: &OwnedFd) -> crate::sys::Result<()> {
        let mut sent = crate::sys::sendmsg_fd(self.socket.as_fd(), text, listener.as_fd())?;
        while let Some(rest) = text.get(sent..).filter(|rest| !rest.is_empty()) {
            sent += rustix::net::send(&self.socket, rest, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }
}

/// config-linux.md, The Container Process State. `state` is JSON already.
fn container_process_state(pid: Pid, metadata: &str, state: &str) -> String {
    let metadata = if metadata.is_empty() { String::new() } else { format!(",\"metadata\":{}", Value::from(metadata)) };
    let pid = pid.as_raw_nonzero();
    format!("{{\"ociVersion\":\"{OCI_VERSION}\",\"fds\":[\"seccompFd\"],\"pid\":{pid}{metadata},\"state\":{state}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_json_whatever_the_metadata_is() {
        let of = |metadata: &str| {
            let text = container_process_state(Pid::from_raw(7).unwrap(), metadata, r#"{"id":"a"}"#);
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let mut wanted =
            serde_json::json!({"ociVersion": OCI_VERSION, "fds": ["seccompFd"], "pid": 7, "state": {"id": "a"}});
        assert_eq!(of(""), wanted);
        wanted["metadata"] = Value::from("a \"b\"\n\\");
        assert_eq!(of("a \"b\"\n\\"), wanted);
    }
}
