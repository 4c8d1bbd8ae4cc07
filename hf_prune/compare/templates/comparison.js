hoverCharts();
