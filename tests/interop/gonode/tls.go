package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/ioutil"
	"net"
	"os"
	"time"

	"github.com/hashicorp/raft"
)

// secured is a StreamLayer of mutual TLS: who dials checks the name of whom it dialled,
// who listens wants a certificate of the same authority.
type secured struct {
	net.Listener
	config *tls.Config
}

func (s *secured) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	host, _, err := net.SplitHostPort(string(address))
	if err != nil {
		return nil, err
	}
	config := s.config.Clone()
	config.ServerName = host
	return tls.DialWithDialer(&net.Dialer{Timeout: timeout}, "tcp", string(address), config)
}

// newTransport listens at an address: in the clear, or with the certificate and key
// that are called stem.pem and stem.key.
func newTransport(address, stem, authority string) (*raft.NetworkTransport, error) {
	if stem == "" {
		return raft.NewTCPTransport(address, nil, 3, callTimeout, os.Stderr)
	}
	certificate, err := tls.LoadX509KeyPair(stem+".pem", stem+".key")
	if err != nil {
		return nil, err
	}
	pem, err := ioutil.ReadFile(authority)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no authority in " + authority)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
		RootCAs:      pool,
		MinVersion:   tls.VersionTLS12,
	}
	listener, err := tls.Listen("tcp", address, config)
	if err != nil {
		return nil, err
	}
	layer := &secured{listener, config}
	return raft.NewNetworkTransport(layer, 3, callTimeout, os.Stderr), nil
}
