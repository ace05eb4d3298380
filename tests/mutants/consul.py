"""Planted bugs in what Consul's clients see: sessions, names of nodes, the catalog."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        name="what was written of a session is told ahead of its level",
        at="_named",
        old="wanted.written if level else None",
        new="wanted.written",
        caught_by="tests.http.test_sessions.Shapes.test_before_the_level_is_active",
    ),
    Mutant(
        name="a backup brings to level 0 what only level 1 can tell",
        at="KeyValueFSM._replace",
        old="session.written if now.level else None",
        new="session.written",
        caught_by="tests.kv.test_levels.WhatWasWritten.test_backup_at_level_0",
    ),
    Mutant(
        name="a backup forgets the names of nodes",
        at="KeyValueFSM._replace",
        old=(
            "State(rows=rows, urls=now.urls, index=index, session_index=index, sessions=sessions, delays=delays, results=now.results, "
            "level=now.level, names=now.names)"
        ),
        new=(
            "State(rows=rows, urls=now.urls, index=index, session_index=index, sessions=sessions, delays=delays, results=now.results, "
            "level=now.level, names={})"
        ),
        caught_by="tests.kv.test_levels.WhatWasWritten.test_backup_keeps_names",
    ),
    Mutant(
        name="replicas that know other names of nodes are called equal",
        at="digest_parts",
        old="[state.level, sorted(state.names.items())]",
        new="[state.level]",
        caught_by="tests.kv.test_levels.WhatWasWritten.test_digest",
    ),
    Mutant(
        name="a query for one session is woken by every one",
        at="Sessions.topic_of_one",
        old="Topic(Scope.SESSION, _id(call))",
        new="SESSIONS",
        caught_by="tests.http.test_sessions.Shapes.test_info_is_woken_by_its_session_alone",
    ),
    Mutant(
        name="a query waits for the end of a session that has ended",
        at="KeyValueFSM.changed_at",
        old="self.session_index if session is None else session.modify_index",
        new="0 if session is None else session.modify_index",
        caught_by="tests.http.test_sessions.Shapes.test_info_of_one_that_has_ended_is_answered_at_once",
    ),
    Mutant(
        name="a node's name is told ahead of the level that it belongs to",
        at="Advertiser._told_name",
        old="self._name if self._fsm.active_level else ''",
        new="self._name",
        caught_by="tests.http.test_advertise.Named.test_leader",
    ),
    Mutant(
        name="a leader takes a name ahead of the level that it belongs to",
        at="ClusterAPI._advertise",
        old="_name(call) if self._fsm.active_level else ''",
        new="_name(call)",
        caught_by="tests.http.test_advertise.Following.test_asks_with_its_name",
    ),
    Mutant(
        name="a name is proposed while the activation is being applied",
        at="Advertiser._activated",
        old="self._clock.callLater(0, self._begin)",
        new="self._begin()",
        caught_by="tests.http.test_advertise.Named.test_leader",
    ),
    Mutant(
        name="a change of members wakes nobody who watches the catalog",
        at="Catalog._committed",
        old="self.look()",
        new="pass",
        caught_by="tests.http.test_agent.Membership.test_change_wakes",
    ),
    Mutant(
        name="a restored snapshot wakes nobody who watches the catalog",
        at="KeyValueFSM.everything_changed",
        old="self.catalog_changed()",
        new="pass",
        caught_by="tests.http.test_agent.Membership.test_restored_snapshot_wakes",
    ),
    Mutant(
        name="a query begins to wait for a catalog that was not looked at",
        at="Agent.topic",
        old="self._catalog.look()",
        new="pass",
        caught_by="tests.http.test_agent.Membership.test_change_that_nobody_told_of",
    ),
    Mutant(
        name="a membership that is committed is told to nobody",
        at="EventNotifier._membership_committed",
        old="self.members.tell(Observation(self._raft, history.latest))",
        new="pass",
        caught_by="tests.node.test_raft_membership.Adding.test_watch_members",
    ),
)
