// One server of hashicorp/raft, told what to do over HTTP on loopback.
//
// A POST to /<command> carries one JSON object and is answered with another; a failure
// is {"error": text}. member.py answers the same commands for the other kind.
package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/ioutil"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb"
)

const callTimeout = 10 * time.Second

// recorder is a state machine whose state is all that it was given: for each command
// index, term, length and data. Snapshots are those bytes.
type recorder struct {
	mutex   sync.Mutex
	state   []byte
	count   int
	lastIdx uint64
}

func (f *recorder) Apply(entry *raft.Log) interface{} {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	head := make([]byte, 20)
	binary.BigEndian.PutUint64(head, entry.Index)
	binary.BigEndian.PutUint64(head[8:], entry.Term)
	binary.BigEndian.PutUint32(head[16:], uint32(len(entry.Data)))
	f.state = append(append(f.state, head...), entry.Data...)
	f.count++
	f.lastIdx = entry.Index
	return f.count
}

func (f *recorder) Snapshot() (raft.FSMSnapshot, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return captured(append([]byte(nil), f.state...)), nil
}

func (f *recorder) Restore(source io.ReadCloser) error {
	defer source.Close()
	state, err := ioutil.ReadAll(source)
	if err != nil {
		return err
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.state, f.count, f.lastIdx = state, 0, 0
	for at := 0; at < len(state); f.count++ {
		f.lastIdx = binary.BigEndian.Uint64(state[at:])
		at += 20 + int(binary.BigEndian.Uint32(state[at+16:]))
	}
	return nil
}

type captured []byte

func (c captured) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(c); err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

func (c captured) Release() {}

type request struct {
	ID       string `json:"id"`
	Address  string `json:"address"`
	Data     string `json:"data"`
	Count    int    `json:"count"`
	Inflight int    `json:"inflight"`
	Size     int    `json:"size"`
}

type answer map[string]interface{}

type server struct {
	raft     *raft.Raft
	fsm      *recorder
	protocol int
}

func (s *server) status(request) (answer, error) {
	stats := s.raft.Stats()
	future := s.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil, err
	}
	servers := []answer{}
	for _, member := range future.Configuration().Servers {
		servers = append(servers, answer{
			"id": string(member.ID), "address": string(member.Address),
			"votes": member.Suffrage == raft.Voter,
		})
	}
	number := func(key string) int {
		value, _ := strconv.Atoi(stats[key])
		return value
	}
	return answer{
		"state": stats["state"], "leader": string(s.raft.Leader()),
		"term": number("term"), "last": number("last_log_index"),
		"commit": number("commit_index"), "applied": number("applied_index"),
		"snapshot": number("last_snapshot_index"), "servers": servers,
	}, nil
}

func (s *server) applied(request) (answer, error) {
	s.fsm.mutex.Lock()
	defer s.fsm.mutex.Unlock()
	digest := sha256.Sum256(s.fsm.state)
	return answer{
		"count": s.fsm.count, "last": s.fsm.lastIdx, "digest": hex.EncodeToString(digest[:]),
	}, nil
}

func (s *server) state(request) (answer, error) {
	s.fsm.mutex.Lock()
	defer s.fsm.mutex.Unlock()
	return answer{"state": hex.EncodeToString(s.fsm.state)}, nil
}

func (s *server) apply(r request) (answer, error) {
	future := s.raft.Apply([]byte(r.Data), callTimeout)
	if err := future.Error(); err != nil {
		return nil, err
	}
	return answer{"index": future.Index()}, nil
}

// load keeps commands in flight until all are answered, and counts the outcomes.
func (s *server) load(r request) (answer, error) {
	tokens := make(chan bool, r.Inflight)
	var mutex sync.Mutex
	var waiting sync.WaitGroup
	done, failed := 0, answer{}
	padding := make([]byte, r.Size)
	for i := range padding {
		padding[i] = '.'
	}
	for i := 0; i < r.Count; i++ {
		tokens <- true
		waiting.Add(1)
		data := append([]byte(fmt.Sprintf("%s-%d", r.Data, i)), padding...)
		future := s.raft.Apply(data, callTimeout)
		go func() {
			err := future.Error()
			mutex.Lock()
			if err == nil {
				done++
			} else {
				failed[err.Error()] = true
			}
			mutex.Unlock()
			<-tokens
			waiting.Done()
		}()
	}
	waiting.Wait()
	return answer{"done": done, "failed": failed}, nil
}

func (s *server) barrier(request) (answer, error) {
	return nil, s.raft.Barrier(callTimeout).Error()
}

func (s *server) verify(request) (answer, error) {
	return nil, s.raft.VerifyLeader().Error()
}

func (s *server) snapshot(request) (answer, error) {
	return nil, s.raft.Snapshot().Error()
}

func (s *server) add(r request) (answer, error) {
	if s.protocol < 2 {
		return nil, s.raft.AddPeer(raft.ServerAddress(r.Address)).Error()
	}
	return nil, s.raft.AddVoter(
		raft.ServerID(r.ID), raft.ServerAddress(r.Address), 0, callTimeout).Error()
}

func (s *server) nonvoter(r request) (answer, error) {
	return nil, s.raft.AddNonvoter(
		raft.ServerID(r.ID), raft.ServerAddress(r.Address), 0, callTimeout).Error()
}

func (s *server) demote(r request) (answer, error) {
	return nil, s.raft.DemoteVoter(raft.ServerID(r.ID), 0, callTimeout).Error()
}

func (s *server) remove(r request) (answer, error) {
	if s.protocol < 2 {
		return nil, s.raft.RemovePeer(raft.ServerAddress(r.Address)).Error()
	}
	return nil, s.raft.RemoveServer(raft.ServerID(r.ID), 0, callTimeout).Error()
}

func (s *server) transfer(r request) (answer, error) {
	return nil, s.raft.LeadershipTransferToServer(
		raft.ServerID(r.ID), raft.ServerAddress(r.Address)).Error()
}

func (s *server) serve(address string) error {
	commands := map[string]func(request) (answer, error){
		"status": s.status, "applied": s.applied, "state": s.state, "apply": s.apply,
		"load": s.load, "barrier": s.barrier, "verify": s.verify,
		"snapshot": s.snapshot, "add": s.add, "nonvoter": s.nonvoter,
		"demote": s.demote, "remove": s.remove, "transfer": s.transfer,
	}
	for name, command := range commands {
		command := command
		http.HandleFunc("/"+name, func(w http.ResponseWriter, r *http.Request) {
			var told request
			json.NewDecoder(r.Body).Decode(&told)
			result, err := command(told)
			if err != nil {
				result = answer{"error": err.Error()}
			} else if result == nil {
				result = answer{}
			}
			json.NewEncoder(w).Encode(result)
		})
	}
	return http.ListenAndServe(address, nil)
}

type options struct {
	directory, address, id, control, bootstrap, recover, tls, ca string
	protocol, heartbeat, trailing                                int
}

func configuration(path string, protocol int) (raft.Configuration, error) {
	if protocol < 3 {
		return raft.ReadPeersJSON(path)
	}
	return raft.ReadConfigJSON(path)
}

func start(o options) (*server, error) {
	settings := raft.DefaultConfig()
	settings.ProtocolVersion = raft.ProtocolVersion(o.protocol)
	settings.LocalID = raft.ServerID(o.id)
	settings.HeartbeatTimeout = time.Duration(o.heartbeat) * time.Millisecond
	settings.ElectionTimeout = settings.HeartbeatTimeout
	settings.LeaderLeaseTimeout = settings.HeartbeatTimeout / 2
	settings.TrailingLogs = uint64(o.trailing)
	settings.ShutdownOnRemove = false
	settings.LogOutput = os.Stderr
	if err := os.MkdirAll(o.directory, 0700); err != nil {
		return nil, err
	}
	// What a killed process has written stays written; only a power cut needs syncs.
	store, err := raftboltdb.New(raftboltdb.Options{
		Path: filepath.Join(o.directory, "raft.db"), NoSync: true,
	})
	if err != nil {
		return nil, err
	}
	snapshots, err := raft.NewFileSnapshotStore(o.directory, 2, os.Stderr)
	if err != nil {
		return nil, err
	}
	transport, err := newTransport(o.address, o.tls, o.ca)
	if err != nil {
		return nil, err
	}
	fsm := &recorder{}
	if o.recover != "" {
		members, err := configuration(o.recover, o.protocol)
		if err != nil {
			return nil, err
		}
		err = raft.RecoverCluster(settings, fsm, store, store, snapshots, transport, members)
		if err != nil {
			return nil, err
		}
		fsm = &recorder{}
	}
	if o.bootstrap != "" {
		members, err := configuration(o.bootstrap, o.protocol)
		if err != nil {
			return nil, err
		}
		err = raft.BootstrapCluster(settings, store, store, snapshots, transport, members)
		if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
			return nil, err
		}
	}
	node, err := raft.NewRaft(settings, fsm, store, store, snapshots, transport)
	return &server{raft: node, fsm: fsm, protocol: o.protocol}, err
}

func main() {
	var o options
	flag.StringVar(&o.directory, "directory", "", "data directory")
	flag.StringVar(&o.address, "address", "", "address for peers")
	flag.StringVar(&o.id, "id", "", "server id")
	flag.StringVar(&o.control, "control", "", "address for commands")
	flag.StringVar(&o.bootstrap, "bootstrap", "", "peers.json that founds a cluster")
	flag.StringVar(&o.recover, "recover", "", "peers.json that recovers a cluster")
	flag.StringVar(&o.tls, "tls", "", "certificate and key, without .pem and .key")
	flag.StringVar(&o.ca, "ca", "", "authority of the cluster")
	flag.IntVar(&o.protocol, "protocol", 3, "protocol version")
	flag.IntVar(&o.heartbeat, "heartbeat", 1000, "heartbeat timeout, milliseconds")
	flag.IntVar(&o.trailing, "trailing", 10240, "entries kept behind a snapshot")
	flag.Parse()
	node, err := start(o)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(node.serve(o.control))
}
