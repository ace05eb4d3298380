// One server of hashicorp/raft with a map as its state machine; writes are proposed
// inside the leader's process. Built together with control.go.
package main

import (
	"encoding/binary"
	"encoding/gob"
	"encoding/json"
	"flag"
	"io"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb"
)

const never = 24 * time.Hour

// table keeps values by key. A command is the length of the key in two bytes, the key
// and the value.
type table struct {
	mutex  sync.Mutex
	values map[string][]byte
}

func command(key string, value []byte) []byte {
	made := make([]byte, 2, 2+len(key)+len(value))
	binary.BigEndian.PutUint16(made, uint16(len(key)))
	return append(append(made, key...), value...)
}

func (t *table) Apply(entry *raft.Log) interface{} {
	size := 2 + binary.BigEndian.Uint16(entry.Data)
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.values[string(entry.Data[2:size])] = entry.Data[size:]
	return nil
}

func (t *table) Snapshot() (raft.FSMSnapshot, error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	values := make(map[string][]byte, len(t.values))
	for key, value := range t.values {
		values[key] = value
	}
	return captured(values), nil
}

func (t *table) Restore(source io.ReadCloser) error {
	defer source.Close()
	values := map[string][]byte{}
	if err := gob.NewDecoder(source).Decode(&values); err != nil {
		return err
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.values = values
	return nil
}

type captured map[string][]byte

func (c captured) Persist(sink raft.SnapshotSink) error {
	if err := gob.NewEncoder(sink).Encode(map[string][]byte(c)); err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

func (c captured) Release() {}

type member struct {
	raft *raft.Raft
}

func (m *member) put(_ int, key string, value []byte) error {
	return m.raft.Apply(command(key, value), 0).Error()
}

func (m *member) status(request) (answer, error) {
	applied, err := strconv.Atoi(m.raft.Stats()["applied_index"])
	return answer{"leads": m.raft.State() == raft.Leader, "applied": applied}, err
}

// commit waits until a write of this server is committed, or another one leads.
func (m *member) commit(r request) (answer, error) {
	for {
		if m.raft.State() == raft.Leader {
			if m.put(0, "failover", nil) == nil {
				return answer{"committed": true}, nil
			}
		} else if leader := string(m.raft.Leader()); leader != "" && leader != r.Killed {
			return answer{"committed": false}, nil
		}
		time.Sleep(pollPause)
	}
}

type store interface {
	raft.LogStore
	raft.StableStore
}

func open(kind, directory string) (store, error) {
	if kind == "inmem" {
		return raft.NewInmemStore(), nil
	}
	return raftboltdb.NewBoltStore(filepath.Join(directory, "raft.db"))
}

func start(kind, directory, address string, peers []string, entries int, snapshots bool) (*raft.Raft, error) {
	settings := raft.DefaultConfig()
	settings.LocalID = raft.ServerID(address)
	settings.LogOutput = os.Stderr
	settings.MaxAppendEntries = entries
	if !snapshots {
		settings.SnapshotInterval = never
	}
	if err := os.MkdirAll(directory, 0700); err != nil {
		return nil, err
	}
	logs, err := open(kind, directory)
	if err != nil {
		return nil, err
	}
	kept, err := raft.NewFileSnapshotStore(directory, 2, os.Stderr)
	if err != nil {
		return nil, err
	}
	transport, err := raft.NewTCPTransport(address, nil, 3, 10*time.Second, os.Stderr)
	if err != nil {
		return nil, err
	}
	var servers []raft.Server
	for _, peer := range peers {
		servers = append(servers, raft.Server{ID: raft.ServerID(peer), Address: raft.ServerAddress(peer)})
	}
	founders := raft.Configuration{Servers: servers}
	err = raft.BootstrapCluster(settings, logs, logs, kept, transport, founders)
	if err != nil && err != raft.ErrCantBootstrap {
		return nil, err
	}
	return raft.NewRaft(settings, &table{values: map[string][]byte{}}, logs, logs, kept, transport)
}

func main() {
	directory := flag.String("directory", "", "data directory")
	address := flag.String("address", "", "address for peers")
	peers := flag.String("peers", "", "all members, separated by commas")
	kind := flag.String("store", "bolt", "bolt or inmem")
	entries := flag.Int("max-append-entries", 64, "entries in one request")
	snapshots := flag.Bool("snapshots", true, "whether snapshots are taken")
	flag.Parse()
	began := time.Now()
	node, err := start(*kind, *directory, *address, strings.Split(*peers, ","), *entries, *snapshots)
	if err != nil {
		log.Fatal(err)
	}
	m := &member{node}
	json.NewEncoder(os.Stdout).Encode(answer{"opened": time.Since(began).Seconds()})
	serve(map[string]func(request) (answer, error){
		"status": m.status,
		"commit": m.commit,
		"load":   func(r request) (answer, error) { return load(r, m.put) },
		"fill":   func(r request) (answer, error) { return fill(r, m.put) },
	})
}
