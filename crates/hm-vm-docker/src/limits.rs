//! Limits of containers, and what can be declared.

use hm_vm_core::Capabilities;

use crate::engine::EngineInfo;

pub(crate) fn capabilities(info: &EngineInfo) -> Capabilities {
    let _ = info;
    Capabilities::default()
}
