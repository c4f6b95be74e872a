// A merchant's server built with the v1 SDK, as its documentation says.

import express from "express";
import { paymentMiddleware } from "x402-express";
import { useFacilitator } from "x402/verify";

import { serve } from "./serve.mjs";

/** Sells `/weather` for `price` to the payee. */
export async function openSellerV1({ quittance, apiKey = quittance.apiKey, network, payee, price }) {
  const authorization = { Authorization: `Bearer ${apiKey}` };
  const config = {
    url: quittance.url,
    createAuthHeaders: async () => ({ verify: authorization, settle: authorization, supported: {} }),
  };
  const routes = { "GET /weather": { price, network: network.v1, config: { description: "The weather", mimeType: "application/json" } } };

  const app = express();
  app.use(paymentMiddleware(payee, routes, config));
  return { ...(await serve(app)), facilitator: useFacilitator(config) };
}
