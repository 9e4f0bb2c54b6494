// A Kubernetes control plane for tests in one binary: etcd inside of kube-apiserver's process, and the controller manager.
//
//	control-plane apiserver <flags of kube-apiserver>
//	control-plane kcm <flags of kube-controller-manager>
//
// With ETCD_DIR set, apiserver first starts an etcd on that folder; ETCD_CLIENT and ETCD_PEER are its URLs.
package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

const etcdStartTimeout = time.Minute

func startEtcd(dir, clientURL, peerURL string) error {
	client, err := url.Parse(clientURL)
	if err != nil {
		return err
	}
	peer, err := url.Parse(peerURL)
	if err != nil {
		return err
	}
	config := embed.NewConfig()
	config.Dir = dir
	config.ListenClientUrls = []url.URL{*client}
	config.AdvertiseClientUrls = []url.URL{*client}
	config.ListenPeerUrls = []url.URL{*peer}
	config.AdvertisePeerUrls = []url.URL{*peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.LogLevel = "error"
	config.LogOutputs = []string{"stderr"}
	// The data outlives a killed process, not a crash of the machine: enough for a test.
	config.UnsafeNoFsync = true
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return nil
	case err := <-etcd.Err():
		return err
	case <-time.After(etcdStartTimeout):
		return errors.New("not ready in time")
	}
}

func run() int {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: control-plane apiserver|kcm <flags>")
		return 2
	}
	part := os.Args[1]
	os.Args = append([]string{"kube-" + part}, os.Args[2:]...)
	var command *cobra.Command
	switch part {
	case "apiserver":
		if dir := os.Getenv("ETCD_DIR"); dir != "" {
			if err := startEtcd(dir, os.Getenv("ETCD_CLIENT"), os.Getenv("ETCD_PEER")); err != nil {
				fmt.Fprintln(os.Stderr, "etcd:", err)
				return 1
			}
		}
		command = apiserver.NewAPIServerCommand()
	case "kcm":
		command = kcm.NewControllerManagerCommand()
	default:
		fmt.Fprintln(os.Stderr, "unknown part:", part)
		return 2
	}
	return cli.Run(command)
}

func main() {
	os.Exit(run())
}
