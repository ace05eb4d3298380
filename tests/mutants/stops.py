"""Planted bugs in the order in which a node takes leave of its clients."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        name="leadership is transferred before clients are asked to go",
        at="Shutdown._drain",
        old="self._site.drain()\nawait give_up_leadership(self._raft, self._clock)",
        new="await give_up_leadership(self._raft, self._clock)\nself._site.drain()",
        caught_by="tests.daemon.test_shutdown.ShutdownTests.test_order",
    ),
    Mutant(
        name="connections are refused before those who were there have gone",
        at="Shutdown._drain",
        old=(
            "await self._in_time(self._site.when_left())\n"
            "await stop_accepting(self._port, self._clock)"
        ),
        new=(
            "await stop_accepting(self._port, self._clock)\n"
            "await self._in_time(self._site.when_left())"
        ),
        caught_by="tests.daemon.test_shutdown.ShutdownTests.test_order",
    ),
    Mutant(
        name="Raft stops before clients that came late have gone",
        at="Shutdown._drain",
        old="await self._in_time(self._site.when_empty())",
        new="self._site.when_empty().addErrback(lambda _: None)",
        caught_by="tests.daemon.test_shutdown.ShutdownTests.test_order",
    ),
    Mutant(
        name="clients are told that nothing is served after Raft has stopped",
        at="Shutdown.run",
        old="self._site.close()\nawait self._raft.shutdown()",
        new="await self._raft.shutdown()\nself._site.close()",
        caught_by="tests.daemon.test_shutdown.ShutdownTests.test_order",
    ),
    Mutant(
        name="connections are cut before the last answers are sent",
        at="Shutdown.run",
        old="await self._at_most(self._site.when_empty(), ...)\nself._site.cut()",
        new="self._site.cut()",
        caught_by="tests.daemon.test_shutdown.ShutdownTests.test_order",
    ),
    Mutant(
        name="a node whose Raft has stopped waits for its clients",
        at="Shutdown.run",
        old="self._raft.when_stopping().addCallback(lambda _: self.hurry())",
        new="self._raft.when_stopping()",
        caught_by="tests.daemon.test_shutdown.ShutdownTests.test_raft_stops_by_itself",
    ),
    Mutant(
        name="clients that do not go hold a stop up for ever",
        at="Shutdown._in_time",
        old="0.0 if self._hurries else max(0.0, self._left())",
        new="1e6",
        caught_by="tests.daemon.test_shutdown.ShutdownTests.test_deadline",
    ),
    Mutant(
        name="a node that drains is ready",
        at="API.drain",
        old="self._leadership.is_leaving = True",
        new="self._leadership.is_leaving = False",
        caught_by="tests.http.test_drain.Probes.test_ready",
    ),
    Mutant(
        name="an idle connection is closed as soon as a node drains",
        at="KVChannel.drain",
        old="self.site.clock.callLater(QUIET_SECONDS, self._was_quiet)",
        new="self.site.clock.callLater(0, self._was_quiet)",
        caught_by="tests.http.test_drain.LastAnswers.test_request_on_an_idle_connection",
    ),
    Mutant(
        name="a connection with a request is closed as if it were idle",
        at="KVChannel.drain",
        old="self._quiet is None and self._hurry is None and not self.requests",
        new="self._quiet is None",
        caught_by="tests.http.test_drain.LastAnswers.test_request_in_flight",
    ),
    Mutant(
        name="requests behind the last answer are dropped",
        at="KVChannel.writeHeaders",
        old="self.site.is_draining and not self._has_more",
        new="self.site.is_draining",
        caught_by="tests.http.test_drain.LastAnswers.test_requests_in_a_row",
    ),
    Mutant(
        name="the last answer does not say that it is",
        at="KVChannel.writeHeaders",
        old="self.persistent = 0",
        new="pass",
        caught_by="tests.http.test_drain.LastAnswers.test_request_in_flight",
    ),
    Mutant(
        name="connections that the kernel has made are reset",
        at="stop_accepting",
        old="_accept_all(port, listening)",
        new="pass",
        caught_by="tests.http.test_acceptance.StopAccepting.test_connections_that_wait_are_accepted",
    ),
    Mutant(
        name="the kernel makes connections that nobody will serve",
        at="_drop_newcomers",
        old="listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, named)",
        new="pass",
        caught_by="tests.http.test_acceptance.StopAccepting.test_no_connection_is_begun_meanwhile",
    ),
    Mutant(
        name="blocking queries are answered when a node stops",
        at="Waits.cut",
        old="self.drop(call)",
        new="self._end(call)",
        caught_by="tests.http.test_drain.Parked.test_drain_drops_them",
    ),
    Mutant(
        name="a query on a connection that has to go holds a stop up",
        at="KVSite._may_wait",
        old="request.channel not in self._early",
        new="True",
        caught_by="tests.http.test_drain.Parked.test_connection_that_was_there",
    ),
    Mutant(
        name="a query waits when no new connections are taken any more",
        at="KVSite.drain",
        old="self._early = set(self.channels)",
        new="self._early = set() if self.is_draining else set(self.channels)",
        caught_by="tests.http.test_drain.Parked.test_connection_that_came_late",
    ),
    Mutant(
        name="leadership is transferred while an outcome is awaited",
        at="Leader._send_timeout_now",
        old="self.server.commit_index < last",
        new="False",
        caught_by="tests.core.test_transfer.Transfers.test_transfer_first_commits_everything",
    ),
)
