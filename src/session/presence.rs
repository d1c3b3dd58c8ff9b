//! Presence as one client sees it: it is counted among those who are subscribed to a pattern, may ask who they are, and is
//! told who comes and goes.

use crate::auth::Identity;
use crate::model::presence::{Member, Roster};
use crate::model::topic::Pattern;
use crate::protocol::{CommandId, ErrorCode, Event};
use crate::session::conversation::Standing;
use crate::session::{Action, Session};

impl Session {
    /// Answers who is subscribed to a pattern, to whom could subscribe to it too.
    pub(super) fn ask_presence(
        &mut self,
        identity: &Identity,
        id: CommandId,
        pattern: Pattern,
        actions: &mut Vec<Action>,
    ) {
        if !identity.grants.subscribe {
            return self.fail(id, ErrorCode::Forbidden, "you may not subscribe here".into(), actions);
        }
        if self.terms.presences.of(&pattern).is_none() {
            let message = format!(
                "presence is off for {:?}: set presence.NAME.pattern to a pattern that includes it",
                pattern.as_str()
            );
            return self.fail(id, ErrorCode::Unsupported, message, actions);
        }
        actions.push(Action::Roster { id, pattern });
    }

    /// A subscription stands, the only one on its pattern: it counts where presence is on for that.
    pub(super) fn attend(&self, pattern: &Pattern, actions: &mut Vec<Action>) {
        let Standing::Known(identity) = &self.standing else { return };
        if self.terms.presences.of(pattern).is_some() {
            let member = Member { connection: self.connection.clone(), user: identity.user.clone() };
            actions.push(Action::Attend { pattern: pattern.clone(), member });
        }
    }

    /// It stands no more.
    pub(super) fn depart(&self, pattern: Pattern, actions: &mut Vec<Action>) {
        // Another of its subscriptions may keep it there.
        if self.terms.presences.of(&pattern).is_some() && !self.subscriptions.stands(&pattern) {
            actions.push(Action::Depart { pattern });
        }
    }

    /// Tells who came to a pattern and who went, those who went first; nothing of the client's own coming.
    pub fn moved(&self, pattern: &Pattern, (joined, left): (&[Member], &[Member]), actions: &mut Vec<Action>) {
        for member in left {
            self.send(Event::Left { pattern: pattern.clone(), member: member.clone() }, actions);
        }
        for member in joined.iter().filter(|member| member.connection != self.connection) {
            self.send(Event::Joined { pattern: pattern.clone(), member: member.clone() }, actions);
        }
    }

    /// Tells who is subscribed to a pattern where single steps would not.
    pub fn present(&self, pattern: &Pattern, roster: Roster, actions: &mut Vec<Action>) {
        self.send(Event::Presence { id: None, pattern: pattern.clone(), roster }, actions);
    }
}
