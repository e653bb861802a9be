// Measures each metric of an AnalysisTemplate once, with Argo Rollouts' own web provider, and prints its phase.
//
// The template comes as JSON on standard input, its arguments filled in; a line for each metric goes to standard output.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/argoproj/argo-rollouts/metricproviders/webmetric"
	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"
	log "github.com/sirupsen/logrus"
)

func main() {
	var template v1alpha1.AnalysisTemplate
	check(json.NewDecoder(os.Stdin).Decode(&template))
	for _, metric := range template.Spec.Metrics {
		client, err := webmetric.NewWebMetricHttpClient(metric)
		check(err)
		parser, err := webmetric.NewWebMetricJsonParser(metric)
		check(err)
		provider := webmetric.NewWebMetricProvider(*log.NewEntry(log.New()), client, parser)
		measured := provider.Run(&v1alpha1.AnalysisRun{}, metric)
		fmt.Printf("%s %s %s\n", metric.Name, measured.Phase, measured.Message)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
