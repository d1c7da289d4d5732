import{b as a}from"./chunk-3ADM6VUA.js";export{a as streetTilesOf};
