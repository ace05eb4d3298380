// A client of etcd over gRPC: one connection for each 16 writes in flight, at most 8.
// Built together with control.go.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/clientv3"
)

const (
	writesOfConnection = 16
	mostConnections    = 8
	attemptTime        = time.Second
)

type client struct {
	endpoints []string
}

func (c *client) connect(member, count int) ([]*clientv3.Client, error) {
	var made []*clientv3.Client
	for len(made) < count {
		one, err := clientv3.New(clientv3.Config{
			Endpoints: []string{c.endpoints[member]}, DialTimeout: 10 * time.Second,
		})
		if err != nil {
			return nil, err
		}
		made = append(made, one)
	}
	return made, nil
}

// with calls do with a write over enough connections to one member.
func (c *client) with(r request, do func(request, write) (answer, error)) (answer, error) {
	count := (r.Inflight + writesOfConnection - 1) / writesOfConnection
	if count > mostConnections {
		count = mostConnections
	}
	connections, err := c.connect(r.Member, count)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, one := range connections {
			one.Close()
		}
	}()
	return do(r, func(worker int, key string, value []byte) error {
		_, err := connections[worker%count].Put(context.Background(), key, string(value))
		return err
	})
}

func (c *client) status(r request) (answer, error) {
	one, err := c.connect(r.Member, 1)
	if err != nil {
		return nil, err
	}
	defer one[0].Close()
	limit, cancel := context.WithTimeout(context.Background(), attemptTime)
	defer cancel()
	found, err := one[0].Status(limit, c.endpoints[r.Member])
	if err != nil {
		return answer{"leads": false, "applied": 0}, nil
	}
	return answer{
		"leads": found.Leader == found.Header.MemberId, "applied": found.RaftAppliedIndex,
	}, nil
}

// commit waits until a write is committed through one of the members that are left:
// each is asked whether it leads, and the one that does is written to.
func (c *client) commit(r request) (answer, error) {
	first := make(chan bool, len(r.Members))
	stop, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, member := range r.Members {
		one, err := c.connect(member, 1)
		if err != nil {
			return nil, err
		}
		defer one[0].Close()
		go func(member int, one *clientv3.Client) {
			for stop.Err() == nil {
				found, err := one.Status(stop, c.endpoints[member])
				if err == nil && found.Leader == found.Header.MemberId {
					if _, err = one.Put(stop, "failover", ""); err == nil {
						first <- true
						return
					}
				}
				time.Sleep(pollPause)
			}
		}(member, one[0])
	}
	<-first
	return answer{"committed": true}, nil
}

func main() {
	endpoints := flag.String("endpoints", "", "client addresses of all members")
	flag.Parse()
	c := &client{strings.Split(*endpoints, ",")}
	if err := json.NewEncoder(os.Stdout).Encode(answer{}); err != nil {
		log.Fatal(err)
	}
	serve(map[string]func(request) (answer, error){
		"status": c.status,
		"commit": c.commit,
		"load":   func(r request) (answer, error) { return c.with(r, load) },
		"fill":   func(r request) (answer, error) { return c.with(r, fill) },
	})
}
