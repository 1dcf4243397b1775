//! Who may speak in whose name, and how a recipient is reached: promises 3 (no open relay), 4 (mail between departments
//! stays inside) and 5 (the Internet cannot speak for a department). Every answer comes from one View.

use std::{net::IpAddr, sync::Arc};

use proto::{
    address::{Address, ReversePath, lower_case},
    department::DepartmentId,
    envelope::Notification,
    view::{Tenant, View},
};

use super::{
    reply::Reply,
    transaction::{Listener, Recipient, Route, TrustClass},
};

/// Whether a client may speak with this reverse-path, and whose server it is when it came in on the private network.
///
/// # Errors
/// 550 5.7.1 when it may not.
pub fn sender(
    view: &View,
    listener: Listener,
    client: IpAddr,
    path: &ReversePath,
) -> Result<Option<DepartmentId>, Reply> {
    let claimed = path.address().and_then(|address| view.claimed_by(address.domain()));
    match listener {
        Listener::Internet => match claimed {
            Some(tenant) if !tenant.department.lists_service(client) => {
                Err(Reply::permanent(50, (7, 1), "you may not send in the name of that department"))
            }
            Some(_) | None => Ok(None),
        },
        Listener::Departments => {
            let own = view
                .tenant_at(client)
                .ok_or_else(|| Reply::permanent(50, (7, 1), "you are no department's mail server"))?;
            let own_id = &own.department.id;
            let in_own_name = claimed.is_some_and(|tenant| tenant.department.id == *own_id);
            if in_own_name || path.address().is_none() {
                Ok(Some(own_id.clone()))
            } else {
                Err(Reply::permanent(50, (7, 1), format!("{own_id} does not have the domain of that sender")))
            }
        }
    }
}

/// Whether mail for this address is taken, and how it is reached.
///
/// # Errors
/// 550 or 553 when it is not.
pub fn recipient(view: &View, listener: Listener, address: Address) -> Result<Recipient, Reply> {
    if let Some(tenant) = view.tenant_of(address.domain()) {
        return department_recipient(tenant, listener, address);
    }
    match listener {
        Listener::Internet => Err(Reply::permanent(50, (7, 1), "relaying denied")),
        Listener::Departments => internet_recipient(view, address),
    }
}

fn department_recipient(tenant: &Arc<Tenant>, listener: Listener, address: Address) -> Result<Recipient, Reply> {
    refuse_hidden_routes(address.local())?;
    let department = &tenant.department;
    // RFC 5321 section 4.5.1: postmaster is known everywhere.
    if let Some(known) = &department.recipients
        && !address.local().eq_ignore_ascii_case("postmaster")
        && !known.contains(&lower_case(address.local()))
    {
        return Err(Reply::permanent(50, (1, 1), "no such mailbox"));
    }
    let class = match listener {
        Listener::Internet => TrustClass::Internet,
        Listener::Departments => TrustClass::Interdepartmental,
    };
    let route = Route::Department { id: department.id.clone(), next_hops: department.next_hops.clone() };
    Ok(Recipient { address, policy: Arc::clone(&tenant.policy), route, class, notification: Notification::default() })
}

/// Forms of `%`, `!`, `@` and `:` that some servers take for these.
const ROUTES_LOOKALIKE: [char; 10] = [
    '\u{ff05}', '\u{fe6a}', '\u{ff01}', '\u{fe57}', '\u{fe15}', '\u{ff20}', '\u{fe6b}', '\u{ff1a}', '\u{fe55}',
    '\u{fe13}',
];

/// A department's server might unfold `user%elsewhere`, `elsewhere!user` or `"user@elsewhere"` and send the mail on in
/// our trust, or hand a leading `|` or `-` to a program.
fn refuse_hidden_routes(local: &str) -> Result<(), Reply> {
    if local.contains(['%', '!', '@', ':']) || local.contains(ROUTES_LOOKALIKE) {
        return Err(Reply::permanent(50, (7, 1), "relaying denied: a route is hidden in the local part"));
    }
    if local.trim_start_matches(['"', '\\']).starts_with(['-', '|', '\u{ff0d}', '\u{fe63}', '\u{ff5c}']) {
        return Err(Reply::permanent(53, (1, 3), "a mailbox name may not begin like that"));
    }
    Ok(())
}

fn internet_recipient(view: &View, address: Address) -> Result<Recipient, Reply> {
    let domain = address.domain().clone();
    // A name below a department's domain is the government's own. Looking up its MX could send internal mail outside.
    if view.claimed_by(&domain).is_some() {
        return Err(Reply::permanent(50, (1, 2), "no department has exactly that domain"));
    }
    if !domain.as_str().contains('.') {
        return Err(Reply::permanent(50, (1, 2), "not a domain of the Internet"));
    }
    let route = Route::Internet { domain, relays: view.settings.internet_relays.clone() };
    Ok(Recipient {
        address,
        policy: Arc::clone(&view.state_policy),
        route,
        class: TrustClass::Outbound,
        notification: Notification::default(),
    })
}
