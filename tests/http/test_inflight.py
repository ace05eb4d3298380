"""A request as it is read, and as it is written anew for the leader."""

from urllib.parse import urlsplit

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from txraft.http.answers import HTTPRefusal
from txraft.http.inflight import MAX_PARAMETERS, HTTPCall, parse_key, parse_parameters

URL_BYTES = st.sampled_from(list("ab/.%25%2F%zz%C3%A9#?&=;+~|\\\"<>[]'%00 %20"))


def call_to(uri: str) -> HTTPCall:
    request = DummyRequest([])
    request.method, request.uri = b"GET", uri.encode("ascii")
    return HTTPCall(request)


class Targets(SynchronousTestCase):
    """The leader reads the same key and parameters as the node that forwards."""

    def test_target_hides_what_urls_give_a_meaning(self) -> None:
        """A client that sends a bare # means it: it must not cut the key short."""
        self.assertEqual(call_to("/v1/kv/a#b?raw").target(), "/v1/kv/a%23b?raw=")

    @given(st.lists(URL_BYTES).map("".join))
    def test_target_is_read_alike(self, tail: str) -> None:
        try:
            call = call_to(f"/v1/kv/{tail}")
            key = parse_key(call.path[7:], 1024)
        except HTTPRefusal:
            return

        target = call.target()

        again = call_to(target)
        self.assertEqual(parse_key(again.path[7:], 1024), key)
        self.assertEqual(again.parameters, call.parameters)
        self.assertEqual(again.target(), target)
        self.assertEqual(urlsplit(f"http://n1:8500{target}").fragment, "")


class ParametersOf(SynchronousTestCase):
    """Query strings."""

    def test_parse_parameters_without_a_value(self) -> None:
        self.assertEqual(parse_parameters(b"raw&flags=1"), {"raw": "", "flags": "1"})

    def test_parse_parameters_decodes(self) -> None:
        self.assertEqual(parse_parameters(b"a+b=%C3%A9;x"), {"a b": "é;x"})

    def test_parse_parameters_bounded(self) -> None:
        most = b"&".join(b"p%d" % i for i in range(MAX_PARAMETERS))
        self.assertEqual(len(parse_parameters(most)), MAX_PARAMETERS)
        self.assertRaises(HTTPRefusal, parse_parameters, most + b"&one=more")

    def test_parse_parameters_malformed(self) -> None:
        for query in (b"a=%", b"a=%g0", b"a=%FF", b"a=\xc3\xa9"):
            self.assertRaises(HTTPRefusal, parse_parameters, query)
